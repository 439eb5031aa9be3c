#!/bin/sh
# Plays every role's scenario with the tools of the virtual environment $1, or just those named after it.
set -eu
PATH="$PWD/$1/bin:$PATH"
export PATH
shift
for scenario in ${*:-faceswap_install faceswap_run}; do
    molecule test --scenario-name "$scenario"
done
