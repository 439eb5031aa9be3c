# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Gives a host the list of trusted signers, and that of revoked records. It is sent to the host's Python.

Its stdin is JSON with `allowed_signers`, `revocations` (`text` and `sig`, or null) and `check`. Root's lists are the
host's; anybody else's are his own. Standard library only.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

SYSTEM = Path("/etc/faceswap-oci")
UNUSABLE = 29


def bring(order: dict[str, Any]) -> dict[str, Any]:
    """Put the lists where the host's programs look for them; return what changed, or `error` and `code`."""
    home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    folder = SYSTEM if os.geteuid() == 0 else home / ".config" / "faceswap-oci"
    path = folder / "allowed_signers"
    before = read(path)
    wanted = {} if before == order["allowed_signers"] else {path: order["allowed_signers"]}
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
    if not order["check"]:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        for target, text in wanted.items():
            write(target, text)
        if folder == SYSTEM:
            let_others_read(folder)
    return {"path": str(path), "before": before, "changed": bool(wanted)}


def let_others_read(folder: Path) -> None:
    """Undo what root's umask took away: jobs are run by another user, who reads the lists."""
    folder.chmod(folder.stat().st_mode | 0o055)
    for name in ("allowed_signers", "revoked.yml", "revoked.yml.sig"):
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
