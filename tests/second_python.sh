#!/bin/sh
# Runs the tests that need no demo on a Python other than that of the virtual environment $1, if there is one.
set -eu
first=$("$1/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
for version in 3.13 3.12 3.11; do
    [ "$version" = "$first" ] && continue
    python=$(sh tests/find_python.sh "$version")
    [ -n "$python" ] && break
done
if [ -z "$python" ]; then
    echo "SKIPPED: no second Python beside $first; 3.12 or 3.13 with venv would be used."
    exit 0
fi
if [ ! -e .venv-second/ready ] || [ requirements/test.txt -nt .venv-second/ready ]; then
    sh tests/timed.sh venv-second sh requirements/venv.sh .venv-second requirements/test.txt "$python"
fi
# tests/conftest.py says what is left out here, and why.
sh tests/timed.sh second-python sh tests/unit.sh .venv-second "not demo and not once"
