# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Who uses a virtual environment."""

from __future__ import annotations

import os
from pathlib import Path


def user_of(path: Path) -> str | None:
    """Return the ID of a process that runs a program of the environment below `path`, if there is one."""
    programs = os.path.realpath(path / "bin")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            # Not its exe: the environment's Python is a link, and that is what it leads to.
            program = Path(os.fsdecode((process / "cmdline").read_bytes().split(b"\0")[0]))
        except OSError:  # it has ended
            continue
        if program.is_absolute() and os.path.realpath(program.parent) == programs:
            return process.name
    return None
