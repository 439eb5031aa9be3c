#!/bin/sh
# What each part of `make test` took (var/ci-times), beside what it may take on two cores that do nothing else. Too slow
# fails nothing here, because machines are shared and noisy; `make bench-hosts` holds the whole to its figure.
awk '
    NR == FNR { budget[$1] = $2; next }
    FNR == 1 { printf "%-26s %7s %7s\n", "part", "seconds", "budget" }
    { printf "%-26s %7d %7s %s\n", $1, $2, budget[$1], ($1 in budget ? ($2 > budget[$1] ? "over" : "ok") : "") }
' - var/ci-times <<'END'
venv-test 90
lint 40
unit 600
molecule-oci_instance 40
molecule-nvidia_cuda 100
molecule-faceswap_install 100
molecule-faceswap_run 100
demo 150
rehearsal 150
venv-second 90
second-python 200
total 1500
END
