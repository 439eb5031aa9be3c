#!/bin/sh
# Writes the hashed lock files, for Python 3.11 to 3.13 alike. Needs uv; `sh requirements/lock.sh [--upgrade]`.
set -eu
cd "$(dirname "$0")/.."

compile() {
    target=requirements/$1.txt
    shift
    # No index line, and no header: where packages come from is the machine's own setting.
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
        --no-emit-find-links --no-annotate --output-file "$target" "$@"
}

compile run pyproject.toml --group build "$@"
compile oci pyproject.toml --extra oci --constraints requirements/run.txt "$@"
compile engine engine/pyproject.toml requirements/engine.in "$@"
# Faceswap's packages, and apart from them torch with what it computes by on a GPU: not every host takes that build.
cat requirements/faceswap-torch.txt >>requirements/faceswap.txt  # uv keeps the versions that it finds
compile faceswap requirements/faceswap.in --constraints requirements/engine.txt "$@"
awk '/^[a-z]/ { torch = /^(torch|torchvision|triton|cuda-|nvidia-)/ && !/^nvidia-ml-py/ }
     { print > (torch ? "requirements/faceswap-torch.txt" : "requirements/faceswap.new") }' requirements/faceswap.txt
mv requirements/faceswap.new requirements/faceswap.txt
compile test pyproject.toml engine/pyproject.toml emulator/pyproject.toml requirements/engine.in --extra oci --group build --group test \
    --constraints requirements/run.txt --constraints requirements/oci.txt --constraints requirements/engine.txt "$@"
