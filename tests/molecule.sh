#!/bin/sh
# Plays every role's scenario with the tools of the virtual environment $1, or just those named after it.
set -eu
PATH="$PWD/$1/bin:$PATH"
export PATH
shift
if [ $# -eq 0 ]; then
    set -- faceswap_install faceswap_run
    lacking=$(PYTHONPATH=emulator python -c 'from oci_emulator.guest import what_is_missing as w; print(w())')
    if [ -n "$lacking" ]; then
        echo "SKIPPED: scenario oci_instance, whose emulated instance is a real machine: $lacking."
    else
        set -- oci_instance "$@"
    fi
fi
for scenario; do
    molecule test --scenario-name "$scenario"
done
