# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Gives a host the lists of trusted signers and of revoked records, and has it keep where jobs were ever made.

It is sent to the host's Python. Its stdin is JSON with `allowed_signers` (null: as the host has them), `revocations`
(`text` and `sig`, or null), `jobs` (the folder in which jobs are to be made) and `check`. Root's lists are the
host's; anybody else's are his own. Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SYSTEM = Path("/etc/faceswap-oci")
UNUSABLE = 29


def bring(order: dict[str, Any]) -> dict[str, Any]:
    """Put the lists where the host's programs look for them; return what changed, or `error` and `code`.

    A check tells the folders in which `jobs` were ever made and which are there, and those which are `gone`.
    """
    folder = folder_of(os.geteuid())
    path = folder / "allowed_signers"
    before = read(path)
    wanted = {} if order["allowed_signers"] in (None, before) else {path: order["allowed_signers"]}
    revoked = order["revocations"]
    if revoked:
        kept = read(folder / "revoked.yml")
        is_newer = serial_of(revoked["text"]) > serial_of(kept)
        newer, older = (revoked["text"], kept) if is_newer else (kept, revoked["text"])
        if lacking := sorted(ids_of(older) - ids_of(newer)):
            return {"error": parted(serial_of(newer), serial_of(older), lacking), "code": UNUSABLE}
        # A list with fewer records never takes the place of one with more.
        if is_newer:
            wanted |= {folder / "revoked.yml.sig": revoked["sig"], folder / "revoked.yml": revoked["text"]}
    answer = {"path": str(path), "before": before, "changed": bool(wanted)}
    jobs = str(Path(order["jobs"]).expanduser().absolute())
    if order["check"]:
        known = sorted({jobs, *listed(folder), *others_folders()})
        there = [one for one in known if is_there(one)]
        return {**answer, "jobs": there, "gone": [one for one in known if one not in there]}
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    for target, text in wanted.items():
        write(target, text)
    add(jobs, folder)
    if folder == SYSTEM:
        let_others_read(folder)
    return answer


def folder_of(user: int) -> Path:
    """Return the folder in which a user's lists are."""
    return SYSTEM if user == 0 else Path(pwd.getpwuid(user).pw_dir) / ".config" / "faceswap-oci"


def add(jobs: str, folder: Path) -> None:
    """Have a list of folders of jobs name this one too; what it names is never taken out."""
    with held(folder):
        known = listed(folder)
        if jobs not in known:
            write(folder / "jobs.json", json.dumps([*known, jobs], indent=1) + "\n")


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """One at a time."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def listed(folder: Path) -> list[str]:
    """Return the folders of jobs on a list; ValueError where it is none."""
    found = json.loads(read(folder / "jobs.json") or "[]")
    if not isinstance(found, list) or not all(isinstance(one, str) and one.startswith("/") for one in found):
        raise ValueError(f"{folder}/jobs.json, which says where jobs were made, is no list of whole paths")
    return found


def others_folders() -> list[str]:
    """Return what the lists of others name: root's, and to root that of the login, who may have run jobs himself."""
    other = int(os.environ.get("SUDO_UID", 0)) if os.geteuid() == 0 else 0
    return listed(folder_of(other)) if other != os.geteuid() else []


def is_there(path: str) -> bool:
    """Tell whether there is something; what may not be looked at is for who purges it to tell."""
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass
    return True


def let_others_read(folder: Path) -> None:
    """Undo what root's umask took away: jobs are run by another user, who reads the lists."""
    folder.chmod(folder.stat().st_mode | 0o055)
    for name in ("allowed_signers", "revoked.yml", "revoked.yml.sig", "jobs.json"):
        if (folder / name).is_file():
            (folder / name).chmod((folder / name).stat().st_mode | 0o044)


def parted(newer: int, older: int, lacking: list[str]) -> str:
    """Return the sentence about two lists of which none has all that the other has."""
    return (
        f"The lists of revoked records have parted: of the host's and the controller's the one with serial {newer} "
        f"lacks {', '.join(lacking)} of the one with serial {older}: put both lists' records into one, on the "
        "controller with `faceswap-oci consent revoke ID` for each that its list lacks."
    )


def read(path: Path) -> str:
    """Return a file's text, nothing if there is none."""
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def serial_of(text: str) -> int:
    """Return the serial of a list of revocations; the host's programs check its signature whenever they read it."""
    found = re.search(r"^serial: ([0-9]+)", text, re.M)
    return int(found[1]) if found else -1


def ids_of(text: str) -> set[str]:
    """Return the records that a list of revocations names."""
    return set(re.findall(r'^  - id: "([^"]*)"', text, re.M))


def write(path: Path, text: str) -> None:
    """Replace a file in one step."""
    descriptor, new = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        os.fchmod(descriptor, 0o644)
        stream.write(text)
        stream.flush()
        os.fsync(descriptor)
    Path(new).replace(path)


if __name__ == "__main__":
    try:
        print(json.dumps(bring(json.load(sys.stdin))))
    except OSError as error:
        print(json.dumps({"error": f"The host refused {error.filename} ({error.strerror}): mend that."}))
    except (KeyError, ValueError, RecursionError) as error:
        print(json.dumps({"error": f"The host's lists cannot be read ({error}): mend that."}))
