# Each target is one line that calls a tool; the tools hold the logic. Paths are relative: the folder may have a
# space in its name.
# The first Python on the machine for which the lock files hold.
PYTHON ?= $(shell sh tests/find_python.sh 3.11 3.12 3.13)

.PHONY: demo oci test lint unit molecule demo-test second-python readme lock bench-demo bench-oci bench-oci-faults clean

demo:
	started=$$(date +%s) && $(MAKE) --no-print-directory .venv/ready && FACESWAP_OCI_STARTED=$$started .venv/bin/faceswap-oci demo

oci: .venv/oci

test: lint unit molecule demo-test second-python

lint: .venv-test/ready
	sh tests/lint.sh .venv-test

unit: .venv-test/ready
	.venv-test/bin/python -m pytest -m "not demo"

molecule: .venv-test/ready
	sh tests/molecule.sh .venv-test

demo-test: demo .venv-test/ready
	FACESWAP_DEMO_JOB=var/jobs/demo .venv-test/bin/python -m pytest -m demo

second-python: .venv-test/ready
	sh tests/second_python.sh .venv-test

readme: .venv-test/ready
	for role in roles/*/; do .venv-test/bin/aar-doc --output-template roles/README.md.j2 "$$role" markdown; done

lock:
	sh requirements/lock.sh --upgrade

bench-demo: .venv-test/ready
	.venv-test/bin/python tests/bench_demo.py

bench-oci: .venv-test/ready
	.venv-test/bin/python tests/bench_oci.py

bench-oci-faults: .venv-test/ready
	PYTHONPATH=emulator .venv-test/bin/python tests/bench_oci_faults.py

clean:
	rm -rf .venv .venv-test .venv-second var

.venv/ready: requirements/run.txt pyproject.toml
	sh requirements/venv.sh .venv requirements/run.txt "$(PYTHON)"

# Beside the demo's packages: Oracle's SDK, which the demo does without.
.venv/oci: requirements/oci.txt .venv/ready
	.venv/bin/python -m pip install --quiet --no-deps --require-hashes --requirement requirements/oci.txt && touch $@

.venv-test/ready: requirements/test.txt pyproject.toml
	sh requirements/venv.sh .venv-test requirements/test.txt "$(PYTHON)"
