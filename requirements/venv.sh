#!/bin/sh
# Makes the virtual environment $1 from the hashed lock file $2 with the Python $3, and this project in it.
set -eu
if [ -z "$3" ]; then
    echo "No Python 3.11 to 3.13 with its venv module was found: install python3-venv, or name one with PYTHON=..." >&2
    exit 1
fi
echo "Making $1 with $("$3" --version) (a minute or less)"
"$3" -m venv --clear "$1"
# The lock is complete: nothing beyond it is looked for, nothing without a hash is installed.
"$1/bin/python" -m pip install --quiet --no-deps --require-hashes --requirement "$2"
"$1/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable .
touch "$1/ready"
