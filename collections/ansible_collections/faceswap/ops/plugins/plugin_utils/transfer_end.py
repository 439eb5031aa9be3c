# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""One end of a transfer. The controller imports it; the host gets its text, runs it and is rid of it again.

Hence only the standard library, nothing newer than Python 3.9, and nothing of Ansible. An *order* is a JSON object;
`answer` carries it out and returns another one, in which `error` is a sentence for the user.

A file that is under way lies beside its target as `.NAME.<16 hex digits of the content's SHA-256>.part`. What is in
it are the first bytes of that content, so that any later run can go on at its end. It gets its name when its hash
is right, and not before.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

Json = dict[str, Any]

CHUNK = 1 << 20  # bytes read at once
THREADS_FROM = 8 << 20  # bytes to hash from which threads are worth their start
PART = re.compile(r"\..+\.[0-9a-f]{16}\.part", re.DOTALL)
MB = 1e6


class TransferError(Exception):
    """A sentence that the user reads."""


def answer(order: Json, stream: BinaryIO) -> tuple[Json, bytes]:
    """Carry out one order, whose data are in `stream`; return the reply and the data that belong to it."""
    where, root = order["where"], Path(order["root"])
    try:
        root = root.expanduser()
        if not root.is_absolute():
            raise TransferError(f"The path {root} on {where} must be absolute.")
        root = root.resolve()
        if order["do"] == "read":
            return _read(root, order)
        if order["do"] == "list":
            return _list(root, order), b""
        if order["do"] == "compare":
            return _compare(root, order), b""
        return _write(root, order, stream), b""
    except TransferError as error:
        return {"error": str(error)}, b""
    except OSError as error:
        return {"error": _sentence(error, where, root, order.get("need", 0))}, b""


def full_disk(where: str, path: str, free: int, need: int) -> str:
    """The sentence for a disk on which `need` bytes have no room, of which `free` are left."""
    return (
        f"The disk of {where} is too full for {path}: {free / MB:.1f} MB are free, {need / MB:.1f} MB are still "
        "to come. Make room there and run the same command again: it goes on where it stopped."
    )


def _sentence(error: OSError, where: str, root: Path, need: int) -> str:
    path = error.filename if isinstance(error.filename, str) else str(root)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return full_disk(where, str(root), _free(root), need)
    if error.errno in (errno.EACCES, errno.EPERM):
        import pwd  # only here: not every Python has it, and few runs need it

        with contextlib.suppress(KeyError):
            where = f"{where} as {pwd.getpwuid(os.geteuid()).pw_name}"
        return (
            f"No permission for {path} on {where}: let another user do it (become_user), "
            "or give the file or folder to this one."
        )
    return f"{path} on {where}: {error.strerror or error}."


# -- the source ------------------------------------------------------------------------------------------------------


def _list(root: Path, order: Json) -> Json:
    """What is at `root`: for each file its size and hash, and the folders. A single file has the name ''."""
    kind = _kind(root)
    if kind != "folder":
        return {"kind": kind, "files": _measured({"": root} if kind == "file" else {}), "folders": []}
    files: dict[str, Path] = {}
    folders = []
    for name, entry in _walk(root, order["exclude"]):
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            folders.append(name)
        elif entry.is_file(follow_symlinks=False):
            if not PART.fullmatch(entry.name):
                files[name] = path
        elif entry.is_symlink() and path.is_file() and _inside(path, root):
            files[name] = path
        else:
            raise TransferError(
                f"{path} on {order['where']} cannot be sent: only files, folders, and links to files inside {root} "
                "can. Take it away, or name it in `exclude`."
            )
    return {"kind": kind, "files": _measured(files), "folders": folders}


def _read(root: Path, order: Json) -> tuple[Json, bytes]:
    """The bytes of some slices `[name, offset, length]`; `lengths` tells whether a file has become shorter."""
    data = bytearray()
    lengths = []
    for name, offset, length in order["slices"]:
        path = root / name
        if name and not _inside(path, root):
            raise TransferError(f"{path} on {order['where']} has become a link to elsewhere and is not sent.")
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            before = len(data)
            while piece := file.read(length - (len(data) - before)):
                data += piece
        lengths.append(len(data) - before)
    return {"lengths": lengths}, bytes(data)


def _inside(path: Path, root: Path) -> bool:
    return root in path.resolve().parents


# -- the target ------------------------------------------------------------------------------------------------------


def _compare(root: Path, order: Json) -> Json:
    """What must be done here so that what is wanted is here; nothing is written.

    `send` gives for each file that is missing the offset from which it is. `remove` is relative to the folder in
    which the file or, for a folder, everything is to lie.
    """
    kind = _kind(root)
    if kind not in ("nothing", order["kind"]):
        raise TransferError(
            f"{root} on {order['where']} is {_called(kind)}, but {_called(order['kind'])} is to be sent there: "
            "give another `dest`."
        )
    if order["kind"] == "file":
        return _compare_file(root, order, kind)
    if order["mirror"] and (len(root.parts) < 3 or root == Path.home().resolve()):
        raise TransferError(
            f"{root} on {order['where']} would lose all else that is in it: give a folder below it as `dest`."
        )
    files, folders = order["files"], set(order["folders"])
    there: dict[str, Path] = {}
    parts: dict[Path, str] = {}
    remove: list[str] = []
    for name, entry in _walk(root, order["exclude"]) if kind == "folder" else ():
        if remove and name.startswith(f"{remove[-1]}/"):
            continue  # it goes with its folder
        if entry.is_dir(follow_symlinks=False) and name in folders:
            folders.remove(name)
        elif entry.is_file(follow_symlinks=False) and PART.fullmatch(entry.name):
            parts[Path(entry.path)] = name
        elif entry.is_file(follow_symlinks=False) and name in files:
            there[name] = Path(entry.path)
        elif order["mirror"] or name in files or name in order["folders"]:
            if not order["mirror"] and entry.is_dir(follow_symlinks=False):
                raise TransferError(
                    f"{entry.path} on {order['where']} is a folder, and a file is to be sent there: move it away."
                )
            remove.append(name)  # a link in a file's place is replaced like one
    if remove and order["mirror"] and not (order["clear"] or there or parts):
        raise TransferError(
            f"{root} on {order['where']} has nothing of what is to be sent there, and would lose {remove[0]} and all "
            "else that is in it: take that away, or give another `dest`."
        )
    plan = _missing(root, order, there, parts)
    return {**plan, "remove": [*parts.values(), *remove], "folders": sorted(folders)}


def _compare_file(root: Path, order: Json, kind: str) -> Json:
    parts = {}
    if root.parent.is_dir():
        mine = re.compile(re.escape(_part(root, "").name[: -len(".part")]) + r"[0-9a-f]{16}\.part")
        with os.scandir(root.parent) as entries:
            parts = {Path(entry.path): entry.name for entry in entries if mine.fullmatch(entry.name)}
    plan = _missing(root, order, {"": root} if kind == "file" else {}, parts)
    return {**plan, "remove": sorted(parts.values()), "folders": []}


def _missing(root: Path, order: Json, there: dict[str, Path], parts: dict[Path, str]) -> Json:
    """Compare the files; the parts that are of use are taken out of `parts`.

    Only files of the right size are hashed, and not those that this run has `proven` already.
    """
    send, modes = {}, []
    proven = set(order["proven"])
    same = {name: path for name, path in there.items() if path.stat().st_size == order["files"][name][0]}
    found = _measured({name: path for name, path in same.items() if name not in proven})
    for name, (size, digest) in order["files"].items():
        part = _part(root / name, digest)
        if name in same and (name in proven or found[name][1] == digest):
            if order["mode"] is not None and stat.S_IMODE(same[name].stat().st_mode) != order["mode"]:
                modes.append(name)
        else:
            send[name] = min(part.stat().st_size, size) if parts.pop(part, None) is not None else 0
    return {"send": send, "modes": modes, "free": _free(root)}


def _write(root: Path, order: Json, stream: BinaryIO) -> Json:
    """Bring one batch home; `wrong` are the files whose hash was wrong at the end, and of which nothing is kept.

    The same batch may come twice, and a process of a lost connection may still be writing: at any place of a part
    all of them write the same bytes.
    """
    mode = order["mode"]
    base = root if order["kind"] == "folder" else root.parent
    changed: set[Path] = set()
    for name in order["remove"]:
        path = base / name
        changed.add(path.parent)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    _make_folder(base, mode, changed)
    for name in order["folders"]:
        _make_folder(root / name, mode, changed)
    for name in order["modes"]:
        (root / name).chmod(mode)
    wrong = []
    for name, digest, size, offset, length in order["slices"]:
        path = root / name
        if not _write_slice(path, digest, size, offset, _pieces(stream, length), mode):
            wrong.append(name)
        if offset + length == size:
            changed.add(path.parent)
    for folder in changed:
        if folder.is_dir():
            _sync(folder)
    return {"wrong": wrong}


def _write_slice(path: Path, digest: str, size: int, offset: int, pieces: Iterator[bytes], mode: int | None) -> bool:
    """Add to a part; after its last byte prove it and give it its name. False: it was wrong, and is gone."""
    part = _part(path, digest)
    handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "r+b", buffering=0) as file:
        behind = os.fstat(handle).st_size < offset
        file.truncate(offset)
        file.seek(offset)
        end, running = offset, hashlib.sha256()
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[file.write(view) :]
            end += len(piece)
            if offset == 0:
                running.update(piece)
        if not behind and end < size:
            return True
        if behind or (running.hexdigest() if offset == 0 else _measure(part)[1]) != digest:
            part.unlink()
            return False
        os.fchmod(handle, _usual_mode() if mode is None else mode)
        os.fsync(handle)
        part.replace(path)
    return True


def _pieces(stream: BinaryIO, length: int) -> Iterator[bytes]:
    """Exactly `length` bytes, in chunks; what came before the connection went is handed on, too."""
    while length:
        piece = stream.read(min(length, CHUNK))
        if not piece:
            raise EOFError("the connection is gone")
        length -= len(piece)
        yield piece


# -- files and folders -----------------------------------------------------------------------------------------------


def _kind(path: Path) -> str:
    """What is at `path`; PermissionError where that cannot be seen."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "nothing"
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "special"


def _called(kind: str) -> str:
    return {"special": "neither a file nor a folder"}.get(kind, f"a {kind}")


def _part(path: Path, digest: str) -> Path:
    """Where a file with this content lies while it is under way; a long name is cut to what a folder may hold."""
    return path.with_name(f".{os.fsdecode(os.fsencode(path.name)[:200])}.{digest[:16]}.part")


def _walk(root: Path, exclude: Iterable[str], above: str = "") -> Iterator[tuple[str, os.DirEntry[str]]]:
    """All below `root` with its name relative to it, sorted, a folder before what is in it."""
    with os.scandir(root / above) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if entry.name in exclude:
            continue
        name = f"{above}/{entry.name}" if above else entry.name
        yield name, entry
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, exclude, name)


def _measured(paths: dict[str, Path]) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of files; on several cores where that pays."""
    if len(paths) > 1 and sum(path.stat().st_size for path in paths.values()) > THREADS_FROM:
        from concurrent.futures import ThreadPoolExecutor  # only here: it takes longer to load than all the rest

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            results = pool.map(_measure, paths.values())
            return {name: next(results) for name in paths}
    return {name: _measure(path) for name, path in paths.items()}


def _measure(path: Path) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    buffer = memoryview(bytearray(CHUNK))
    with path.open("rb", buffering=0) as file:
        while got := file.readinto(buffer):
            digest.update(buffer[:got])
            size += got
    return size, digest.hexdigest()


def _make_folder(path: Path, mode: int | None, changed: set[Path]) -> None:
    """Make a folder with what is above it; who may read a file of this mode may enter its folder."""
    if path.is_dir():
        return
    _make_folder(path.parent, mode, changed)
    path.mkdir()
    if mode is not None:
        path.chmod(mode | 0o300 | (mode & 0o444) >> 2)
    changed.add(path.parent)


def _sync(folder: Path) -> None:
    """Make the names in a folder last through a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _usual_mode() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _free(path: Path) -> int:
    """Bytes that this user may still write where `path` is or will be."""
    while not path.is_dir():
        path = path.parent
    disk = os.statvfs(path)
    return (disk.f_bfree if os.geteuid() == 0 else disk.f_bavail) * disk.f_frsize


def main() -> None:
    """On the host: an order on the first line of standard input, its data after it."""
    stream = sys.stdin.buffer
    reply, data = answer(json.loads(stream.readline()), stream)
    # All that was sent is read, or the controller would take the closed pipe for a lost connection.
    while stream.read(CHUNK):
        pass
    sys.stdout.write(f"\n{base64.b64encode(data).decode()}\n{json.dumps(reply)}\n")


if __name__ == "__main__":
    main()
