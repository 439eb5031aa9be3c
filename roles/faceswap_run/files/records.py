"""What the programs of a job share: records that outlast a crash, digests, and errors in one sentence.

Standard library only, Python 3.9 or newer.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]


class StageError(Exception):
    """A cause and a remedy in one sentence, for the user."""


class NotYetError(StageError):
    """Something that an earlier stage makes is not there: in check mode that is to be expected."""


def read_json(path: Path) -> Json:
    """Return the object in `path`, or an empty one where there is no (readable) file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # the last where it is deeply nested
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: Path, content: Json) -> None:
    """Replace `path` in one step, so that a reader or a crash never meets half a file."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=1, sort_keys=True)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder outlast a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_full(error: OSError) -> bool:
    """Tell whether an error means that there is no room on the disk."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def sentence(error: Exception, place: Path) -> str:
    """Return cause and remedy of what went wrong with the files in `place`."""
    if isinstance(error, StageError):
        return str(error)
    if not isinstance(error, OSError):
        what = " ".join(f"{type(error).__name__}: {error}".split())
        return f"The stage's supervisor failed itself ({what}): run it again, and report it if it fails again."
    if is_full(error):
        return disk_full(place)
    return f"The host refused a file ({str(error).split('] ', 1)[-1]}): mend that, and run it again."


def disk_full(place: Path) -> str:
    """Return the sentence for a full disk."""
    return f"The disk of {place} is full: free some room, or set faceswap_run_dir to a larger disk, and run it again."


def files_below(path: Path) -> Iterator[Path]:
    """Yield the files of a file or folder in a fixed order, without Python's byte code."""
    if path.is_dir():
        for child in sorted(path.iterdir()):
            if child.name != "__pycache__":
                yield from files_below(child)
    elif path.exists():
        yield path


class Hashes:
    """SHA-256 of files and folders; a file is read again only when its size, time or inode changed."""

    def __init__(self, cache: Path) -> None:
        self._path = cache
        self._cache = read_json(cache)
        self._seen: Json = {}

    def of(self, path: Path) -> str:
        """Return the hex digest over names and contents below `path`; StageError if nothing is there."""
        if not path.exists():
            raise NotYetError(f"{path} is missing: run the stage that makes it first.")
        total = hashlib.sha256()
        for file in files_below(path):
            total.update(f"{file.relative_to(path)}\0{self.file(file)}\n".encode())
        return total.hexdigest()

    def file(self, file: Path) -> str:
        """Return the hex digest of a file."""
        stat = file.stat()
        # Anybody can set the time of a file's content back, nobody that of its inode.
        mark = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        known = self._cache.get(str(file))
        if known is None or known[0] != mark:
            digest = hashlib.sha256()
            with file.open("rb") as stream:
                for block in iter(lambda: stream.read(1 << 20), b""):
                    digest.update(block)
            known = [mark, digest.hexdigest()]
        self._cache[str(file)] = self._seen[str(file)] = known
        return str(known[1])

    def save(self) -> None:
        """Keep what was hashed for the next run."""
        write_json(self._path, self._seen)
