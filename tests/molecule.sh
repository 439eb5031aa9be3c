#!/bin/sh
# Plays every role's scenario with the tools of the virtual environment $1, or just those named after it.
set -eu
PATH="$PWD/$1/bin:$PATH"
export PATH
shift
if [ $# -eq 0 ]; then
    lacking=$(PYTHONPATH=emulator python -c '
from oci_emulator import guest
from testhosts import machine
print(machine.what_is_missing() or guest.what_is_missing())')
    if [ -n "$lacking" ]; then
        echo "SKIPPED: the scenarios, whose hosts are real machines: $lacking."
        if [ "${REQUIRE_HOSTS:-0}" = 1 ]; then exit 1; else exit 0; fi
    fi
    set -- oci_instance nvidia_cuda faceswap_install faceswap_run
fi
for scenario; do
    sh tests/timed.sh "molecule-$scenario" molecule test --scenario-name "$scenario"
done
