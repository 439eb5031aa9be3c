#!/bin/sh
# Runs the tests that the marker expression $2 chooses with the virtual environment $1, four files at a time: most of
# them wait for programs that they started. Within a file they share what is dear to make, so a file stays together.
set -eu
exec "$1/bin/python" -m pytest -m "$2" --numprocesses 4 --dist loadfile --no-loadscope-reorder
