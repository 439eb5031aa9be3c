#!/bin/sh
# Every rule of the house, with the tools of the virtual environment $1; stops at the first that is broken.
set -eu
PATH="$PWD/$1/bin:$PATH"
export PATH

echo "== ruff"
ruff check --quiet .
ruff format --check --quiet .

echo "== mypy"
mypy src engine/minifaceswap emulator/oci_emulator
mypy roles/faceswap_run/files
mypy collections/ansible_collections/faceswap/ops/plugins
mypy tests
mypy molecule

echo "== ansible-lint"
ansible-lint --offline -q

echo "== role READMEs against argument specs"
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
for role in roles/*/; do
    cp -r "$role" "$fresh/"
    aar-doc --output-template roles/README.md.j2 "$fresh/$(basename "$role")" markdown >/dev/null
    diff -u "${role}README.md" "$fresh/$(basename "$role")/README.md" || {
        echo "${role}README.md does not say what its argument specs say: run 'make readme' and commit it." >&2
        exit 1
    }
done
