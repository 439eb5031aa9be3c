# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""What a stack was asked for and what it became, on the controller: written before a request and after it.

One JSON object a line, only ever appended and synced, so that a killed run leaves at most one torn line. A
request that was killed between the two lines is an *open intent*: the next run repeats it with the same retry
token, by which the cloud knows it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from ansible_collections.faceswap.ops.plugins.module_utils.private_files import make_folder

STATE_DIR = "~/.local/state/faceswap-oci/stacks"  # one folder a stack in it, unless the user says another
LISTED_AFTER_S = 10.0  # after so long Oracle lists whatever it has accepted (a guess: nobody says a figure)
_TIME = "%Y-%m-%dT%H:%M:%SZ"


class LedgerBusyError(Exception):
    """Another run holds this ledger."""


class Ledger:
    """The ledger of one stack; a context manager which holds it for one run at a time.

    With `writing` false (check mode) nothing is written, and an absent ledger stays absent.
    Raises LedgerBusyError on entering.
    """

    def __init__(self, path: Path, writing: bool = True) -> None:
        self._path = path
        self._writing = writing
        self._handle: int | None = None
        self._lines: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        """Hold the ledger and read it."""
        if self._writing:
            make_folder(self._path.parent)
            self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._handle)
                raise LedgerBusyError(str(self._path)) from None
        text = self._path.read_bytes() if self._path.exists() else b""
        if text and not text.endswith(b"\n") and self._handle is not None:
            os.write(self._handle, b"\n")  # ends the line that a killed run left torn
        self._lines = [line for line in map(_parsed, text.splitlines()) if line]
        return self

    def __exit__(self, *_: object) -> None:
        """Let another run have it."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    @property
    def life(self) -> dict[str, str]:
        """The life of the stack that goes on: {run, owner, expires}; empty when there is none."""
        for line in reversed(self._lines):
            if line["event"] == "ended":
                return {}
            if line["event"] == "began":
                return {name: line[name] for name in ("run", "owner", "expires")}
        return {}

    def begin(self, run: str, owner: str, expires: str) -> None:
        """A life of the stack begins, or one that another controller began is seen first."""
        self._append("began", run=run, owner=owner, expires=expires)

    def end(self) -> None:
        """Nothing is left of the stack."""
        self._append("ended")

    def intend(self, kind: str, region: str, compartment: str, request: object, what: str = "") -> str:
        """Note that something is about to be asked for, and return the retry token to ask with.

        The token of an open intent is used again for the same request, and for no other: a token stands for
        one request only. `what` tells requests of one kind apart, for `open_intents`.
        """
        digest = hashlib.sha256(json.dumps(request, sort_keys=True, default=str).encode()).hexdigest()[:16]
        line = self.open_intents().get(kind)
        if line and (line["region"], line["request"]) == (region, digest):
            return str(line["token"])
        fields = {"kind": kind, "region": region, "compartment": compartment, "request": digest, "what": what}
        token = uuid.uuid4().hex
        self._append("intent", **fields, token=token)
        return token

    def open_intents(self) -> dict[str, dict[str, Any]]:
        """What was asked for last without an answer, by kind: it may exist. Lines with region, what and token."""
        intents: dict[str, dict[str, Any]] = {}
        for line in self._lines:
            if line["event"] == "intent":
                intents[line["kind"]] = line
            elif line["event"] in ("made", "failed"):
                intents.pop(line["kind"], None)
            elif line["event"] == "ended":
                intents.clear()
        return intents

    def unsettled_s(self, kinds: Collection[str]) -> float:
        """For how many seconds more an open intent may stand for something that Oracle does not list yet."""
        now = datetime.now(UTC)
        ages = [
            (now - datetime.strptime(line["at"], _TIME).replace(tzinfo=UTC)).total_seconds()
            for kind, line in self.open_intents().items()
            if kind in kinds
        ]
        return min(max((LISTED_AFTER_S - age for age in ages), default=0.0), LISTED_AFTER_S)

    def made(self, kind: str, region: str, compartment: str, ocid: str) -> None:
        """Note what exists now: asked for by this run, or found by its tags or beside what was."""
        if ocid not in {line["id"] for line in self.standing()}:
            self._append("made", kind=kind, region=region, compartment=compartment, id=ocid)

    def failed(self, kind: str, why: str) -> None:
        """Note that the last intent of this kind was refused."""
        self._append("failed", kind=kind, why=why)

    def gone(self, ocid: str) -> None:
        """Note that it exists no more."""
        if ocid in {line["id"] for line in self.standing()}:
            self._append("gone", id=ocid)

    def pin_image(self, choice: dict[str, str], ocid: str) -> None:
        """Note the image that was chosen for a life of the stack, so that a newer one changes nothing."""
        self._append("image", choice=choice, id=ocid)

    def pinned_image(self, choice: dict[str, str]) -> str | None:
        """The image chosen before in this life, for the same choice."""
        for line in reversed(self._lines):
            if line["event"] == "ended":
                return None
            if line["event"] == "image" and line["choice"] == choice:
                return str(line["id"])
        return None

    def standing(self) -> list[dict[str, Any]]:
        """What was made and is not known to be gone: lines with kind, region, compartment and id."""
        standing: dict[str, dict[str, Any]] = {}
        for line in self._lines:
            if line["event"] == "made":
                standing[line["id"]] = line
            elif line["event"] == "gone":
                standing.pop(line["id"], None)
        return list(standing.values())

    def places(self) -> set[tuple[str, str]]:
        """Every (region, compartment) in which something was asked for in the life that goes on."""
        places: set[tuple[str, str]] = set()
        for line in self._lines:
            if line["event"] == "ended":
                places.clear()
            elif "compartment" in line:
                places.add((line["region"], line["compartment"]))
        return places

    def met(self, run: str) -> bool:
        """Whether this controller began that life of the stack, or has worked on it."""
        return any(line["event"] == "began" and line["run"] == run for line in self._lines)

    def _append(self, event: str, **fields: Any) -> None:
        line = {"at": datetime.now(UTC).strftime(_TIME), "event": event, **fields}
        self._lines.append(line)
        if self._handle is not None:
            text = json.dumps(line).encode() + b"\n"
            if os.write(self._handle, text) != len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            os.fsync(self._handle)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None  # torn: what it would have said was not asked for yet
    return found if isinstance(found, dict) and "event" in found else None
