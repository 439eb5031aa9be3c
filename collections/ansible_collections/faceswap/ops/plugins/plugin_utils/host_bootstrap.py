# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Starts a program of the role on a host, once it has seen that it and its neighbours are the role's own.

It is sent along with each order, so it needs nothing on the host but Python 3.9. Its stdin is one line of JSON with
`program`, its `words` and `files` (digests by their path below the program's folder), and then the program's stdin.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

CACHE = "__pycache__"


def other_than(folder: Path, files: Mapping[str, str]) -> str | None:
    """Return the first file in a folder that is another, or any link; None if all is well.

    Python runs byte code by whatever name, so every file counts. What it has cached is made anew, and goes before.
    """
    found = {}
    for place, folders, names in os.walk(folder):
        for name in [name for name in folders if name == CACHE and not Path(place, name).is_symlink()]:
            shutil.rmtree(Path(place, name), ignore_errors=True)
            if not os.path.lexists(Path(place, name)):
                folders.remove(name)
        for name in [*folders, *names]:
            path = Path(place, name)
            shown = str(path.relative_to(folder))
            if path.is_symlink():
                return shown
            if name == CACHE:
                return shown
            if not path.is_dir():
                found[shown] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    differing = sorted(name for name in {*found, *files} if found.get(name) != files.get(name))
    return differing[0] if differing else None


def run(stream: IO[bytes]) -> int:
    """Answer one order; return the program's exit code, or 30."""
    order = json.loads(stream.readline())
    folder = Path(order["program"]).parent
    differing = other_than(folder, order["files"])
    if differing:
        text = (
            f"The programs in {folder} are not those of the role faceswap_run ({differing} is another): run the role "
            "without leaving out a task, which brings them."
        )
        print(json.dumps({"error": text, "code": 30, "differing": differing}))
        return 30
    # Neither the environment nor byte code that lies about has a say in what is run.
    words = [sys.executable, "-I", "-B", "-X", "pycache_prefix=/nonexistent", order["program"], *order["words"]]
    return subprocess.run(words, input=stream.read(), check=False).returncode


if __name__ == "__main__":
    sys.exit(run(sys.stdin.buffer))
