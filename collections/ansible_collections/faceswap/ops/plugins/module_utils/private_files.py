# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Files for their owner's eyes only, which are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def make_folder(path: Path) -> Path:
    """Make a folder that only its owner may enter, with what lies above it, and return it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def write_file(path: Path, text: str) -> bool:
    """Give a file (mode 0600) this text: written, synced and renamed. Return whether that changed it."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    make_folder(path.parent)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes it 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise
    sync_folder(path.parent)
    return True


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last through a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
