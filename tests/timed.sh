#!/bin/sh
# Runs a part of `make test`, and writes `PART SECONDS` into var/ci-times: sh tests/timed.sh PART COMMAND...
set -eu
part=$1
shift
began=$(date +%s)
"$@"
mkdir -p var
echo "$part $(($(date +%s) - began))" >>var/ci-times
