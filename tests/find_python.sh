#!/bin/sh
# Prints the first working Python with venv of the wanted versions; nothing if there is none.
# pyenv's own folders are looked at too: its shims for versions that are not switched on do not run.
version_of='import ensurepip, sys, venv; print("%d.%d" % sys.version_info[:2])'
for candidate in python3 python3.13 python3.12 python3.11 \
    "$HOME"/.pyenv/versions/3.13*/bin/python3 "$HOME"/.pyenv/versions/3.12*/bin/python3; do
    found=$("$candidate" -c "$version_of" 2>/dev/null) || continue
    for wanted in "$@"; do
        if [ "$found" = "$wanted" ]; then
            echo "$candidate"
            exit 0
        fi
    done
done
