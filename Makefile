# Each target is one line that calls a tool; the tools hold the logic. Paths are relative: the folder may have a
# space in its name.
# The first Python on the machine for which the lock files hold.
PYTHON ?= $(shell sh tests/find_python.sh 3.11 3.12 3.13)

.PHONY: demo oci test lint unit molecule demo-test rehearsal second-python readme lock bench-demo bench-oci bench-oci-faults bench-hosts bench-faceswap bench-consent contract mutants clean

demo:
	started=$$(date +%s) && $(MAKE) --no-print-directory .venv/ready && FACESWAP_OCI_STARTED=$$started .venv/bin/faceswap-oci demo

oci: .venv/oci

# One part after the other, and at the end a table of what each of them took (var/ci-times).
test:
	rm -f var/ci-times
	sh tests/timed.sh total $(MAKE) --no-print-directory lint unit molecule demo-test rehearsal second-python
	sh tests/budget.sh

lint: .venv-test/ready
	sh tests/timed.sh lint sh tests/lint.sh .venv-test

unit: .venv-test/ready
	sh tests/timed.sh unit sh tests/unit.sh .venv-test "not demo"

molecule: .venv-test/ready
	sh tests/molecule.sh .venv-test

demo-test: .venv-test/ready
	sh tests/timed.sh demo $(MAKE) --no-print-directory demo
	FACESWAP_DEMO_JOB=var/jobs/demo .venv-test/bin/python -m pytest -m demo

rehearsal: .venv-test/ready
	PYTHONPATH=emulator sh tests/timed.sh rehearsal .venv-test/bin/python tests/rehearsal.py

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

bench-hosts: .venv-test/ready
	PYTHONPATH=emulator .venv-test/bin/python tests/bench_hosts.py

bench-faceswap: .venv-test/ready
	.venv-test/bin/python tests/bench_faceswap.py

bench-consent: .venv-test/ready
	PYTHONPATH=emulator:collections .venv-test/bin/python tests/bench_consent.py

# What the Faceswap that ENGINE (an engine.json) describes takes for options and settings, as the roles check them.
contract: .venv-test/ready
	.venv-test/bin/python tests/faceswap_contract.py "$(ENGINE)"

mutants: .venv-test/ready
	.venv-test/bin/python tests/mutants.py $(ONLY)

clean:
	rm -rf .venv .venv-test .venv-second var

.venv/ready: requirements/run.txt pyproject.toml
	sh requirements/venv.sh .venv requirements/run.txt "$(PYTHON)"

# Beside the demo's packages: Oracle's SDK, which the demo does without.
.venv/oci: requirements/oci.txt .venv/ready
	.venv/bin/python -m pip install --quiet --no-deps --require-hashes --requirement requirements/oci.txt && touch $@

.venv-test/ready: requirements/test.txt pyproject.toml
	sh tests/timed.sh venv-test sh requirements/venv.sh .venv-test requirements/test.txt "$(PYTHON)"
