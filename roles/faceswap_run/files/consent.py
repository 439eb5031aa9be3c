#!/usr/bin/env python3
"""Who agreed to what: signed records of consent, read and checked alike on the controller and on a host.

    consent.py check --record-a RECORD --source-a SOURCE --record-b RECORD --source-b SOURCE

answers with one JSON object, a side's in `a` and `b`, or `error` and `code`, and ends with the code. One side may be
left out. Standard library only, Python 3.9 or newer; the signatures are OpenSSH's, checked by its ssh-keygen.

A record is YAML, but only so much of it that a glance tells what it says: the keys of RECORD in this order, each text
in double quotes. Beside `x.yml` lie `x.yml.sig` and a picture of the person alone. Days are those of UTC.

Whose signatures count stands in `allowed_signers`, in `/etc/faceswap-oci` or else in `~/.config/faceswap-oci`. The
folder is no setting, and no variable of the environment has a say: who could choose it could sign for anybody.
Beside it `revoked.yml` and its signature name the records that are void.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import json
import os
import pwd
import re
import shlex
import stat
import subprocess
import sys
import tempfile
import time
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MISSING, UNREADABLE, EXPIRED, NOT_YET, REVOKED, ALTERED, STRANGER = range(20, 27)
OTHER_FILE, NOT_COVERED, NO_TRUST, NOT_ALLOWED = range(27, 31)

SIDES = {"a": "head", "b": "face"}  # of A the head stays, of B the face comes
RECORD = "faceswap-oci consent 1"
REVOCATIONS = "faceswap-oci revocations 1"
RECORD_NAMESPACE = "consent@faceswap-oci"
REVOCATIONS_NAMESPACE = "revocations@faceswap-oci"

SYSTEM_TRUST = Path("/etc/faceswap-oci")
OWN_TRUST = ".config/faceswap-oci"
PROGRAM_FOLDERS = ("/usr/bin", "/bin", "/usr/local/bin", "/opt/homebrew/bin")

# The demo's two persons are drawn by a program. Its key signs for these two records and for nothing else; no other
# key signs for them. (tests/test_demo_consent.py holds both against demo/consent.)
DEMO_SIGNER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINZRnKA8MRvywsLVbxDgx1XKdhxgKIVw6kkosu8zNuJl"
DEMO_RECORDS = frozenset(
    {
        "840fea93aeaf6deef3e3dedddb118250da6486e660cd2956a4d8e34884b5f70d",  # a.yml
        "13a02b4370ce4055864a27c21951fbace9d745eae1ab719772f30611742b9bd0",  # b.yml
    }
)

MOST_BYTES = 1 << 20  # of a record; a few hundred sources are a tenth of that
MOST_SIGNATURE_BYTES = 1 << 14
MOST_LETTERS = 200
PICTURES = (".png", ".jpg", ".jpeg", ".webp")

# What some reader of YAML takes for a line's end or refuses, and what is not seen or makes a text look like another.
_UNFIT = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\uffff\ud800-\udfff]"
    "|[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u2800\u3164\uffa0\U0001bca0-\U0001bca3\U0001d173-\U0001d17a]"
    "|[\U0001fffe\U0001ffff\U000e0000-\U0010ffff]"
)
# Not seen either, but some scripts and emoji are written with them: they do not make another person of a name.
_UNSEEN = re.compile("[\u200c\u200d\ufe00-\ufe0f]")
_LINE = re.compile(
    r"(?P<indent> *(?:- )?)(?:(?P<key>[a-z0-9_]+):)?"
    r'(?P<value>(?:(?<=:) |(?<=- ))(?:"(?:[^"\\]|\\["\\])*"|0|[1-9][0-9]{0,8}|\[\]))?(?: +#.*| *)'
)
_NOTHING = re.compile(r" *(?:#.*)?")
ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class ConsentError(Exception):
    """A cause and a remedy in one sentence, with the exit code that tells its kind."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Item:
    """A file, or a folder of files, by content; its name is for people."""

    sha256: str
    name: str


@dataclass(frozen=True)
class Record:
    """What a person agreed to."""

    id: str
    identity: str
    recorded_by: str
    purpose: str
    may_be_made: tuple[str, ...]
    sources: tuple[Item, ...]
    reference: Item
    valid_from: datetime.date
    valid_until: datetime.date


@dataclass(frozen=True)
class Revocations:
    """Which records are void since when; the list with the highest serial counts."""

    serial: int = 0
    ids: Mapping[str, datetime.date] = field(default_factory=dict)


@dataclass(frozen=True)
class Consent:
    """A record that holds today: `digest` is its file's, `signer` who signed it, `reference` the picture's path."""

    record: Record
    digest: str
    signer: str
    reference: Path

    def covers(self, sha256: str) -> bool:
        """Tell whether it is given for a source of this digest."""
        return any(source.sha256 == sha256 for source in self.record.sources)


# -- reading and writing ---------------------------------------------------------------------------------


class _Lines:
    """The lines of a text, of which each is asked for in turn."""

    def __init__(self, text: bytes, what: str) -> None:
        self._what, self._number = what, 0
        try:
            decoded = text.decode("utf-8")
        except UnicodeDecodeError:
            raise self.error("is not UTF-8") from None
        unfit = _UNFIT.search(decoded)
        if unfit:
            self._number = decoded.count("\n", 0, unfit.start()) + 1
            raise self.error(f"has the character U+{ord(unfit[0]):04X}")
        self._lines = decoded.split("\n")

    def error(self, why: str) -> ConsentError:
        where = f" (line {self._number} {why})" if self._number else f" (it {why})"
        remedy = "write it anew with `faceswap-oci consent new`, and sign it."
        return ConsentError(UNREADABLE, f"{self._what} cannot be read{where}: {remedy}")

    def _next(self) -> re.Match[str] | None:
        """Return the next line that says something, without passing it."""
        while self._number < len(self._lines) and _NOTHING.fullmatch(self._lines[self._number]):
            self._number += 1
        return _LINE.fullmatch(self._lines[self._number]) if self._number < len(self._lines) else None

    def next_is(self, indent: str) -> bool:
        """Tell whether the next line begins so."""
        line = self._next()
        return bool(line) and line["indent"] == indent  # type: ignore[index]

    def _take(self, indent: str, key: str | None, hint: str) -> str | None:
        line = self._next()
        self._number += 1
        if not line or line["indent"] != indent or line["key"] != key:
            raise self.error(f"should be `{indent}{hint}`")
        return line["value"] and line["value"].strip()

    def heading(self, key: str, empty: bool = False) -> bool:
        """Pass `key:`; return whether something comes below it, which `[]` says it does not."""
        value = self._take("", key, f"{key}:")
        if value is not None and not (empty and value == "[]"):
            raise self.error(f"should be `{key}:`")
        return value is None

    def text(self, indent: str, key: str | None) -> str:
        """Pass `key: "text"` and return the text."""
        hint = f'{key}: "..."' if key else '"..."'
        value = self._take(indent, key, hint)
        if value is None or value[0] != '"':
            raise self.error(f"should be `{indent}{hint}`")
        text = re.sub(r"\\(.)", r"\1", value[1:-1])
        if not text.strip() or len(text) > MOST_LETTERS:
            raise self.error(f"holds no text, or one of more than {MOST_LETTERS} letters")
        return text

    def number(self, key: str) -> int:
        """Pass `key: 1` and return the number."""
        value = self._take("", key, f"{key}: 1")
        if value is None or not value.isdigit():
            raise self.error(f"should be `{key}: 1`")
        return int(value)

    def fitting(self, indent: str, key: str, pattern: re.Pattern[str]) -> str:
        """Pass a text that must look like this."""
        text = self.text(indent, key)
        if not pattern.fullmatch(text):
            raise self.error(f"holds no {key} that could be one")
        return text

    def day(self, indent: str, key: str) -> datetime.date:
        """Pass a date."""
        try:
            return datetime.date.fromisoformat(self.fitting(indent, key, _DAY))
        except ValueError:
            raise self.error("names a day that there is not") from None

    def item(self, first: str, other: str) -> Item:
        """Pass a digest and a file's name."""
        sha256 = self.fitting(first, "sha256", _SHA256)
        name = self.text(other, "name")
        if "/" in name or "\\" in name or name in (".", ".."):
            raise self.error("holds more than a file's name")
        return Item(sha256, name)

    def end(self) -> None:
        """See that nothing follows."""
        self._next()
        if self._number < len(self._lines):
            self._number += 1
            raise self.error("does not belong there")


def parse(text: bytes, what: str = "The record") -> Record:
    """Return what a record says; ConsentError (21) where it is not in the one form that a record has."""
    lines = _Lines(text, what)
    if lines.text("", "format") != RECORD:
        raise lines.error(f'should be `format: "{RECORD}"`')
    identifier = lines.fitting("", "id", ID)
    identity, recorded_by, purpose = (lines.text("", key) for key in ("identity", "recorded_by", "purpose"))
    lines.heading("may_be_made")
    uses: list[str] = []
    while not uses or lines.next_is("  - "):
        uses.append(lines.text("  - ", None))
        if uses[-1] not in SIDES.values() or uses[-1] in uses[:-1]:
            raise lines.error("should be head or face, each once at most")
    lines.heading("sources")
    sources: list[Item] = []
    while not sources or lines.next_is("  - "):
        sources.append(lines.item("  - ", "    "))
    lines.heading("reference")
    reference = lines.item("  ", "  ")
    if Path(reference.name).suffix.lower() not in PICTURES:
        raise lines.error(f"names no picture ({', '.join(PICTURES)})")
    valid_from, valid_until = lines.day("", "valid_from"), lines.day("", "valid_until")
    if valid_until < valid_from:
        raise lines.error("lies before valid_from")
    lines.end()
    return Record(
        identifier, identity, recorded_by, purpose, tuple(uses), tuple(sources), reference, valid_from, valid_until
    )


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def dump(record: Record) -> str:
    """Return a record's text; ConsentError (21) where it would not be read again as it is."""
    for item in (*record.sources, record.reference):
        if len(item.name) > MOST_LETTERS or "\\" in item.name or "\n" in item.name or _UNFIT.search(item.name):
            raise ConsentError(
                UNREADABLE,
                f"The file name {item.name!a} cannot stand in a record: rename the file, to at most "
                f"{MOST_LETTERS} plain letters.",
            )
    notes = {"head": "this head stays, with another's face", "face": "this face comes, on another's head"}
    lines = [
        "# Consent to be part of a face swap. Once signed, any change makes it void.",
        f"format: {_quoted(RECORD)}",
        *(f"{key}: {_quoted(getattr(record, key))}" for key in ("id", "identity", "recorded_by", "purpose")),
        "may_be_made:",
        *(f"  - {_quoted(use)}  # {notes.get(use, '?')}" for use in record.may_be_made),
        "sources:",
        *(f"  - sha256: {_quoted(item.sha256)}\n    name: {_quoted(item.name)}" for item in record.sources),
        "reference:  # a picture of this person alone, which lies beside the record",
        f"  sha256: {_quoted(record.reference.sha256)}",
        f"  name: {_quoted(record.reference.name)}",
        f"valid_from: {_quoted(record.valid_from.isoformat())}",
        f"valid_until: {_quoted(record.valid_until.isoformat())}  # this day included",
    ]
    text = "\n".join(lines) + "\n"
    with contextlib.suppress(ConsentError):
        if parse(text.encode("utf-8", "surrogatepass")) == record:
            return text
    raise ConsentError(
        UNREADABLE,
        f"A text of the record cannot be written: give it in at most {MOST_LETTERS} plain letters on one line, and "
        "files such names.",
    )


def parse_revocations(text: bytes, what: str = "The list of revoked records") -> Revocations:
    """Return what a list of revocations says; ConsentError (29) where it cannot be read."""
    try:
        lines = _Lines(text, what)
        if lines.text("", "format") != REVOCATIONS:
            raise lines.error(f'should be `format: "{REVOCATIONS}"`')
        serial = lines.number("serial")
        ids: dict[str, datetime.date] = {}
        more = lines.heading("revoked", empty=True)
        while more:
            identifier = lines.fitting("  - ", "id", ID)
            if identifier in ids:
                raise lines.error("names a record for the second time")
            ids[identifier] = lines.day("    ", "day")
            more = lines.next_is("  - ")
        lines.end()
    except ConsentError as error:
        said = str(error).partition(": ")[0]
        raise ConsentError(NO_TRUST, f"{said}: have who signed it write it anew.") from None
    return Revocations(serial, ids)


def dump_revocations(revocations: Revocations) -> str:
    """Return the text of a list of revocations."""
    lines = [
        "# Records of consent that are void. Signed as a whole; the list with the highest serial counts.",
        f"format: {_quoted(REVOCATIONS)}",
        f"serial: {revocations.serial}",
        f"revoked:{'' if revocations.ids else ' []'}",
        *(
            f"  - id: {_quoted(identifier)}\n    day: {_quoted(day.isoformat())}"
            for identifier, day in sorted(revocations.ids.items())
        ),
    ]
    return "\n".join(lines) + "\n"


# -- files -----------------------------------------------------------------------------------------------


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Return a regular file's content, read once; ValueError if it is no such file or holds more."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would keep us waiting
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError(f"{path} is no file")
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{path} holds more than {most} bytes")
    return content


Mark = list[int]


def mark_of(found: os.stat_result) -> Mark:
    """Return what changes when a file is written to, or another takes its place."""
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def hash_file(name: str | Path) -> tuple[str, Mark]:
    """Return digest and mark of a regular file, read through one descriptor; ConsentError (30) for anything else."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags)
    except FileNotFoundError:
        raise
    except OSError as error:
        why = f"{name} is a link or no file that can be read ({error.strerror})"
        raise ConsentError(NOT_ALLOWED, f"{why}: put the file itself there.") from None
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise ConsentError(NOT_ALLOWED, f"{name} is no file: put the file itself there.")
        digest = hashlib.sha256()
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
        if mark_of(before) != mark_of(os.fstat(descriptor)):
            raise ConsentError(NOT_ALLOWED, f"{name} is being written to: wait until it is whole, and run it again.")
    return digest.hexdigest(), mark_of(before)


def files_in(folder: Path, below: str = "") -> Iterator[str]:
    """Yield the relative names of all files in a folder; ConsentError (30) where one is neither file nor folder."""
    with os.scandir(folder / below) as entries:
        found = sorted(entries, key=lambda entry: os.fsencode(entry.name))
    for entry in found:
        name = f"{below}/{entry.name}" if below else entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from files_in(folder, name)
        elif entry.is_file(follow_symlinks=False):
            yield name
        else:
            raise ConsentError(
                NOT_ALLOWED, f"{folder / name} is a link or no file: put the file itself there, not a way to it."
            )


def folder_digest(files: Mapping[str, str]) -> str:
    """Return a folder's digest by its files': that of what sha256sum prints of them in the order of their names."""
    total = hashlib.sha256()
    for name in sorted(files, key=os.fsencode):
        plain = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        line = f"{'' if plain == name else chr(92)}{files[name]}  {plain}\n"
        total.update(os.fsencode(line))
    return total.hexdigest()


def digest_of(path: Path) -> str:
    """Return the digest of a file or folder. No links: ConsentError (30); a folder without a file: (27)."""
    if path.is_symlink() or not path.is_dir():
        return hash_file(path)[0]
    files = {name: hash_file(path / name)[0] for name in files_in(path)}
    if not files:
        raise ConsentError(OTHER_FILE, f"{path} holds no file: a source is a video, or a folder of images.")
    return folder_digest(files)


# -- whom is trusted -------------------------------------------------------------------------------------


def trust_folder() -> Path:
    """Return the folder that says whose signatures count."""
    if os.path.lexists(SYSTEM_TRUST / "allowed_signers"):
        return SYSTEM_TRUST
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir) / OWN_TRUST
    except KeyError:
        return SYSTEM_TRUST


def trusted_bytes(path: Path) -> bytes | None:
    """Return what a file of the trust folder holds, None without one; ConsentError (29) if others may write it."""
    try:
        for place in (path.parent, path):
            found = place.stat()
            if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
                raise ConsentError(
                    NO_TRUST,
                    f"{place} says whose consent counts, and others than its user may write to it: "
                    f"run `{shlex.join(['chmod', 'go-w', str(place)])}`, and make sure that it is yours or root's.",
                )
        return read_bytes(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConsentError(NO_TRUST, f"{path} cannot be read ({error}): mend that, and run it again.") from None


def ssh_keygen() -> str:
    """Return the path of the program that checks signatures."""
    for folder in PROGRAM_FOLDERS:
        program = f"{folder}/ssh-keygen"
        if os.access(program, os.X_OK):
            return program
    raise ConsentError(NO_TRUST, "There is no ssh-keygen here to check signatures with: install OpenSSH's client.")


def _ssh_keygen(verb: str, *words: str, signature: bytes, message: bytes = b"") -> tuple[int, str]:
    """Ask ssh-keygen about a signature, which it reads from a pipe, so that nobody can put another in its place."""
    reading, writing = os.pipe()
    try:
        os.write(writing, signature)  # a pipe holds at least this much
        os.close(writing)
        done = subprocess.run(
            [ssh_keygen(), "-Y", verb, *words, "-s", f"/dev/fd/{reading}"],
            input=message,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[reading],
            cwd="/",
            env={"PATH": ":".join(PROGRAM_FOLDERS), "LC_ALL": "C"},
            check=False,
        )
    finally:
        os.close(reading)
    return done.returncode, done.stdout.decode("utf-8", "replace")


def _principals(signers: Path) -> list[str]:
    """Return all names that a file of trusted signers has; `!` and what follows it are none."""
    lines = (trusted_bytes(signers) or b"").decode("utf-8", "replace").splitlines()
    fields = [re.match(r'\s*(?:"([^"]*)"|([^\s#]\S*))\s', line) for line in lines]
    found = [name for field in fields if field for name in (field[1] or field[2] or "").split(",")]
    return [name for name in found if name and not name.startswith(("!", "-"))]


def signer_of(message: bytes, signature: bytes, namespace: str, signers: Path, what: str) -> str:
    """Return who signed; ConsentError: altered (25), or signed by a stranger (26)."""
    code, said = _ssh_keygen("find-principals", "-f", str(signers), signature=signature)
    names = [name for line in said.splitlines() for name in line.split(",") if name and not name.startswith("!")]
    if code == 0 and names:
        names += _principals(signers)  # the key may stand there again, for this use; ssh-keygen names the first line
    for name in dict.fromkeys(names if code == 0 else ()):
        words = ("-f", str(signers), "-I", name, "-n", namespace)
        if _ssh_keygen("verify", *words, signature=signature, message=message)[0] == 0:
            return name
    if _ssh_keygen("check-novalidate", "-n", namespace, signature=signature, message=message)[0]:
        raise ConsentError(
            ALTERED, f"{what} was altered after it was signed, or is not what was signed: have it signed anew."
        )
    raise ConsentError(
        STRANGER,
        f"{what} is signed by somebody who is not trusted here: have it signed by who is, or, if you know whose key "
        f"it is, trust it with `faceswap-oci consent trust KEY.pub` ({signers}).",
    )


@contextlib.contextmanager
def _demo_signers() -> Iterator[Path]:
    """Yield a file that trusts the demo's key alone."""
    with tempfile.TemporaryDirectory(prefix="faceswap-oci-", dir="/tmp") as folder:
        path = Path(folder) / "allowed_signers"
        path.touch(mode=0o600)  # whatever the umask is: it is looked at like any list of signers
        path.write_text(f'demo@faceswap-oci namespaces="{RECORD_NAMESPACE}" {DEMO_SIGNER}\n')
        yield path


def read_revocations(folder: Path | None = None) -> Revocations:
    """Return the list of the trust folder, an empty one if there is none; ConsentError (29) if it is not trusted."""
    folder = folder or trust_folder()
    for last in (False, True):
        text, signature = (trusted_bytes(folder / name) for name in ("revoked.yml", "revoked.yml.sig"))
        if text is None and signature is None:
            break
        try:
            return verified_revocations(text, signature, folder, str(folder / "revoked.yml"))
        except ConsentError:
            if last:
                raise
            time.sleep(0.1)  # a newer one may be on its way, which are two files
    return Revocations()


def verified_revocations(
    text: bytes | None, signature: bytes | None, folder: Path | None = None, what: str = "The list of revoked records"
) -> Revocations:
    """Return a list that somebody signed who is trusted here; ConsentError (29) otherwise."""
    folder = folder or trust_folder()
    remedy = (
        "get both files anew from who signed it; where that was here, move both away, and revoke each record of the "
        "list again with `faceswap-oci consent revoke ID`."
    )
    if text is None or signature is None or trusted_bytes(folder / "allowed_signers") is None:
        lacking = "itself" if text is None else "its signature" if signature is None else f"{folder}/allowed_signers"
        raise ConsentError(NO_TRUST, f"{what} cannot be checked, as {lacking} is missing: {remedy}")
    try:
        signer_of(text, signature[:MOST_SIGNATURE_BYTES], REVOCATIONS_NAMESPACE, folder / "allowed_signers", what)
    except ConsentError as error:
        raise ConsentError(NO_TRUST, f"{str(error).partition(':')[0]}: {remedy}") from None
    return parse_revocations(text, what)


def see_that_none_is_lost(kept: Revocations, offered: Revocations) -> None:
    """Raise ConsentError (29) where the newer of two lists lacks a record of the other: two people wrote on."""
    newer, older = (offered, kept) if offered.serial > kept.serial else (kept, offered)
    lacking = sorted(set(older.ids) - set(newer.ids))
    if lacking:
        where = "is kept here" if older is kept else "came"
        raise ConsentError(
            NO_TRUST,
            f"The lists of revoked records have parted: the one with serial {newer.serial} lacks "
            f"{', '.join(lacking)} of the one with serial {older.serial}, which {where}: "
            "put both lists' records into one, on the controller with `faceswap-oci consent revoke ID` for each that "
            "its list lacks.",
        )


def keep_revocations(text: bytes, signature: bytes, folder: Path | None = None) -> bool:
    """Put a list into the trust folder if it is trusted and newer than the one there; return whether it was.

    ConsentError (29) if it is not trusted, or the two have parted; OSError where the folder is not ours to write to.
    """
    folder = folder or trust_folder()
    offered = verified_revocations(text, signature, folder)
    # What a kill between the two files left does not fit its signature, but what it says counts. Each is written
    # whole; one that was cut off later says nothing, and an older list could take its place.
    path = folder / "revoked.yml"
    there = trusted_bytes(path)
    try:
        kept = Revocations(-1) if there is None else parse_revocations(there, str(path))
    except ConsentError as error:
        said = str(error).partition(": ")[0]
        remedy = "put the newest list there, with its signature, from a machine that has it."
        raise ConsentError(NO_TRUST, f"{said}, so that nobody knows how new it was: {remedy}") from None
    see_that_none_is_lost(kept, offered)
    if offered.serial < kept.serial:
        return False
    if offered.serial == kept.serial:
        with contextlib.suppress(ConsentError):
            read_revocations(folder)
            return False
    for name, content in (("revoked.yml.sig", signature), ("revoked.yml", text)):
        write_whole(folder / name, content)
    return True


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; all may read it, whatever the umask."""
    descriptor, new = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(descriptor, 0o644)
            stream.write(content)
            stream.flush()
            os.fsync(descriptor)
        Path(new).replace(path)
    except BaseException:
        Path(new).unlink(missing_ok=True)
        raise


# -- whether a record holds ------------------------------------------------------------------------------


def _part(path: Path, what: str, remedy: str, most: int = MOST_BYTES) -> bytes:
    """Return a file of a record; ConsentError: missing (20), or unreadable (21)."""
    try:
        return read_bytes(path, most)
    except FileNotFoundError:
        raise ConsentError(MISSING, f"{what} is missing ({path}): {remedy}") from None
    except (OSError, ValueError) as error:
        raise ConsentError(UNREADABLE, f"{what} cannot be read ({error}): mend that, and run it again.") from None


def verified(
    path: Path, side: str, today: datetime.date | None = None, revocations: Revocations | None = None
) -> Consent:
    """Return the consent that a record gives for a side today.

    ConsentError tells what it lacks. `revocations` are those of the trust folder if no others are given.
    """
    what = f"The consent of side {side.upper()}"
    remedy = "make one with `faceswap-oci consent new`, and sign it with `faceswap-oci consent sign`."
    text = _part(path, f"The record of consent of side {side.upper()}", remedy)
    remedy = f"sign the record with `{shlex.join(['faceswap-oci', 'consent', 'sign', str(path)])}`."
    beside = path.with_name(f"{path.name}.sig")
    signature = _part(beside, f"The signature of side {side.upper()}'s consent", remedy, MOST_SIGNATURE_BYTES)
    digest = hashlib.sha256(text).hexdigest()
    shown = f"{what} ({path})"
    if digest in DEMO_RECORDS:
        with _demo_signers() as signers:
            signer = signer_of(text, signature, RECORD_NAMESPACE, signers, shown)
    else:
        signers = trust_folder() / "allowed_signers"
        if not (trusted_bytes(signers) or b"").strip():
            raise ConsentError(
                MISSING,
                f"{shown} cannot be checked, as nobody is trusted here ({signers} names nobody): trust who signs "
                "records with `faceswap-oci consent trust KEY.pub`.",
            )
        signer = signer_of(text, signature, RECORD_NAMESPACE, signers, shown)
    record = parse(text, shown)
    shown = f"The consent {record.id} of side {side.upper()} ({path})"
    _see_that_it_holds(record, shown, side, today or datetime.datetime.now(datetime.timezone.utc).date())
    if revocations is None:
        revocations = read_revocations()
    if record.id in revocations.ids:
        raise ConsentError(
            REVOKED,
            f"{shown} was revoked on {revocations.ids[record.id]}: nothing may be made with it any more, and what is "
            f"there is purged with `faceswap-oci consent revoke {record.id}`.",
        )
    return Consent(record, digest, signer, _reference(path, record, shown))


def _see_that_it_holds(record: Record, shown: str, side: str, today: datetime.date) -> None:
    """Raise ConsentError where the days or the uses of a record do not cover what is to be done."""
    renew = "have it renewed with `faceswap-oci consent new`, and sign it."
    if today > record.valid_until:
        raise ConsentError(EXPIRED, f"{shown} has expired: it was valid until {record.valid_until}; {renew}")
    if today < record.valid_from:
        raise ConsentError(
            NOT_YET, f"{shown} is not valid yet: it begins on {record.valid_from}; wait for that day, or {renew}"
        )
    if SIDES[side] not in record.may_be_made:
        raise ConsentError(
            NOT_COVERED,
            f"{shown} is for the {' and the '.join(record.may_be_made)} alone, and side {side.upper()} takes the "
            f"{SIDES[side]}: change the sides, or {renew}",
        )


def _reference(path: Path, record: Record, shown: str) -> Path:
    """Return the path of the picture of a record: by its own name beside it, or by the record's."""
    suffix = Path(record.reference.name).suffix.lower()
    places = [path.with_name(f"{path.stem}.reference{suffix}"), path.with_name(record.reference.name)]
    there = [place for place in dict.fromkeys(places) if os.path.lexists(place)]
    if not there:
        raise ConsentError(
            MISSING, f"The reference picture of {shown[4:]} is missing ({places[-1]}): put it beside the record."
        )
    for place in there:
        if hash_file(place)[0] == record.reference.sha256:
            return place
    raise ConsentError(
        OTHER_FILE,
        f"The reference picture {there[0]} is not the one of {shown[4:]}: put back the one that was signed for.",
    )


def _read_aloud(name: str) -> str:
    """Return a name without what nobody hears: its case, blanks, and in which of several ways letters are encoded."""
    folded = unicodedata.normalize("NFKC", _UNSEEN.sub("", name)).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def see_that_they_differ(a: Consent, b: Consent) -> None:
    """Raise ConsentError (28) where both sides are one person."""
    first, second = a.record, b.record
    same = first.id == second.id or _read_aloud(first.identity) == _read_aloud(second.identity)
    if same:
        raise ConsentError(
            NOT_COVERED,
            f"Sides A and B are one person, {first.identity} ({first.id} and {second.id}): name the records of two.",
        )
    if first.reference.sha256 == second.reference.sha256:
        raise ConsentError(
            NOT_COVERED,
            f"Consents {first.id} and {second.id} have the same reference picture ({first.reference.name}), and so "
            "count as one person: give each record a picture of its own person.",
        )


def pair(
    a: Path, b: Path, today: datetime.date | None = None, revocations: Revocations | None = None
) -> dict[str, Consent]:
    """Return the consents of both sides, which must be two persons'."""
    if revocations is None:
        revocations = read_revocations()
    found = {side: verified(path, side, today, revocations) for side, path in (("a", a), ("b", b))}
    see_that_they_differ(found["a"], found["b"])
    return found


def see_that_it_covers(consent: Consent, side: str, sha256: str, source: Path) -> None:
    """Raise ConsentError (27) where a consent was not given for a source of this digest."""
    if not consent.covers(sha256) and consent.digest in DEMO_RECORDS:
        raise ConsentError(
            OTHER_FILE,
            f"Consent {consent.record.id} of side {side.upper()} is the demo's, and counts for its clips alone: name "
            f"in faceswap_run_consent_{side} the record of the person in {source}; one is made in a minute with "
            "`faceswap-oci consent new`, and signed with `faceswap-oci consent sign`.",
        )
    if not consent.covers(sha256):
        names = ", ".join(sorted({item.name for item in consent.record.sources}))
        raise ConsentError(
            OTHER_FILE,
            f"Consent {consent.record.id} of side {side.upper()} is not for {source}: by content it is for {names}; "
            "give that file, or have a record made for this one with `faceswap-oci consent new`, and sign it.",
        )


def check(records: Mapping[str, Path], sources: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Return what a controller wants to know of the consents of one side or both; ConsentError otherwise."""
    revocations = read_revocations()
    found = {side: verified(path, side, None, revocations) for side, path in sorted(records.items())}
    if len(found) == len(SIDES):
        see_that_they_differ(found["a"], found["b"])
    answer = {}
    for side, consent in found.items():
        try:
            sha256 = digest_of(sources[side].resolve()) if side in sources else None
        except FileNotFoundError:
            raise ConsentError(
                OTHER_FILE, f"The source of side {side.upper()} is missing ({sources[side]}): give its path."
            ) from None
        if sha256 is not None:
            see_that_it_covers(consent, side, sha256, sources[side])
        answer[side] = {
            "id": consent.record.id,
            "identity": consent.record.identity,
            "digest": consent.digest,
            "signer": consent.signer,
            "valid_until": consent.record.valid_until.isoformat(),
            "source": sha256,
            "reference": str(consent.reference),
        }
    return answer


def main() -> int:
    """Parse the command line and answer in JSON; errors are one sentence in `error`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["check"])
    for side in SIDES:
        parser.add_argument(f"--record-{side}", type=Path, metavar="RECORD")
        parser.add_argument(f"--source-{side}", type=Path, metavar="SOURCE")
    options = vars(parser.parse_args())
    records = {side: options[f"record_{side}"] for side in SIDES if options[f"record_{side}"]}
    sources = {side: options[f"source_{side}"] for side in SIDES if options[f"source_{side}"]}
    if not records or set(sources) - set(records):
        parser.error("each side that is named needs its record")
    try:
        answer: dict[str, Any] = check(records, sources)
    except ConsentError as error:
        print(json.dumps({"error": str(error), "code": error.code}))
        return error.code
    except OSError as error:
        text = f"{error.filename} cannot be read ({error.strerror}): mend that, and run it again."
        print(json.dumps({"error": text, "code": UNREADABLE}))
        return UNREADABLE
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
