# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Who had what made, when and with whose consent: a log on the controller in which a change shows.

One JSON object a line. Each line holds the hash of the one before, and `head.json` holds how many lines there are
and the hash of the last one, signed with a key that was made with the log. So a line that was altered, moved, put in
or taken out breaks the chain, and lines cut off the end are missed by the head.

An append is first written whole into `next.json`, with the head that it leads to and its signature, and then done:
who comes after a crash does it again from there. The folder itself appears complete by one rename. So a file that is
missing was removed by somebody. What nothing here can show is a whole older copy put in the place of the folder.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import pwd
import shlex
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.faceswap.ops.plugins.module_utils.private_files import make_folder, sync_folder, write_file

NAMESPACE = "audit@faceswap-oci"  # a signature for another purpose is none here
PRINCIPAL = "audit"
NOTHING = "0" * 64  # the hash before the first line

# What an entry may say, and what it says where it is not told.
FIELDS: Mapping[str, Any] = {
    "host": "",
    "event": "",
    "stage": "",
    "job": "",
    "consents": {},
    "engine": {},
    "inputs": {},
    "outputs": {},
    "settings": {},
    "code": 0,
    "message": "",
}

_LOG, _HEAD, _SIGNATURE, _NEXT, _LOCK, _KEY = "log.jsonl", "head.json", "head.json.sig", "next.json", "lock", "key"
_PUBLIC = f"{_KEY}.pub"
# Not from PATH, which somebody may have set; and nothing of the environment reaches them.
_PROGRAMS = ("/usr/bin", "/bin", "/usr/local/bin", "/opt/homebrew/bin")
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----\n", "-----END SSH SIGNATURE-----\n"
_WIDTH = 70  # characters of a signature's line, as ssh-keygen writes it
_SIGNATURE_BYTES = 64  # of Ed25519


class AuditError(Exception):
    """The log cannot be written or read; the message is the whole sentence."""


@dataclass(frozen=True)
class Findings:
    """What `verify` saw: the number of lines, their entries up to the first bad one, and a sentence per finding."""

    count: int
    entries: Sequence[Mapping[str, Any]]
    sentences: Sequence[str]


def audit_folder() -> Path:
    """Where the log lies: below the home that the account database knows, whatever $HOME says."""
    return Path(pwd.getpwuid(os.getuid()).pw_dir) / ".local" / "state" / "faceswap-oci" / "audit"


def append(entry: Mapping[str, Any], folder: Path | None = None) -> str:
    """Add one line for good and return its hash. Raises AuditError; then the line is not there."""
    if unknown := entry.keys() - FIELDS.keys():
        raise AuditError(f"An audit entry has no field {sorted(unknown)[0]!r}: leave it out.")
    folder = folder or audit_folder()
    try:
        if not folder.is_dir():
            _make(folder)
        with _held(folder):
            _finish(folder)
            head = _head(folder)
            _check_end(folder, head)
            line = _line(entry, head)
            _journal(folder, line)
            _finish(folder)
    except OSError as error:
        raise AuditError(
            f"The audit log in {folder} cannot be written ({error.strerror or error}), and nothing is made "
            "unrecorded: mend that and run the same again."
        ) from error
    return str(json.loads(line)["hash"])


def knows(entry: Mapping[str, Any], folder: Path | None = None) -> bool:
    """Whether the last line of this event, host, job and stage has the same inputs and outputs. Raises AuditError.

    It takes the lines as they stand: whether they are true is what `verify` is for.
    """
    path = (folder or audit_folder()) / _LOG
    same = {name: entry.get(name, FIELDS[name]) for name in ("event", "host", "job", "stage")}
    words = [json.dumps({name: value})[1:-1].replace(": ", ":", 1).encode() for name, value in same.items()]
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise AuditError(f"The audit log {path} cannot be read ({error.strerror or error}): mend that.") from error
    for raw in reversed(lines):
        # Most lines are others': reading each as JSON would take longer than asking a host.
        line = _parsed(raw + b"\n") if all(word in raw for word in words) else None
        if line and all(line.get(name) == value for name, value in same.items()):
            return all(entry.get(name, {}) == line[name] for name in ("inputs", "outputs"))
    return False


def has_released(line: str, sha256: str, folder: Path | None = None) -> bool:
    """Whether the log is whole, and its line of this hash says that a file of this digest was released."""
    try:
        findings = verify(folder)
    except AuditError:
        return False
    return (
        findings is not None
        and not findings.sentences
        and any(
            entry["hash"] == line and entry["event"] == "released" and sha256 in entry["outputs"].values()
            for entry in findings.entries
        )
    )


def verify(folder: Path | None = None) -> Findings | None:
    """Hold the log against its own chain and its signed head; None if there is no log yet. Raises AuditError."""
    folder = folder or audit_folder()
    if not folder.exists():
        return None
    try:
        with _held(folder):
            try:
                _finish(folder)
                head = _head(folder)
                about_head = []
            except AuditError as error:
                head, about_head = None, [str(error)]
            text = (folder / _LOG).read_bytes()
    except OSError as error:
        raise AuditError(
            f"The audit log in {folder} cannot be read ({error.strerror or error}), so a file of it was removed or "
            f"belongs to somebody else: {remedy(folder)}"
        ) from error
    entries, sentence = _chain(text.splitlines(keepends=True))
    if sentence is None and head is not None:
        sentence = _against_head(entries, head)
    count = int(head["count"]) if head else len(entries)
    sentences = ([sentence] if sentence else []) + about_head
    if not sentences and not (folder / _KEY).is_file():
        sentences = ["The key that signs the log was removed, so that no line can follow."]
    return Findings(count, entries, sentences)


def commit() -> str:
    """The commit of the checkout that this file lies in, with ` changed` if files differ; "" if it lies in none."""
    root = Path(__file__).resolve().parents[6]
    if not (root / "roles" / "faceswap_run").is_dir():  # the collection alone, in its user's home
        return ""
    try:
        git = [_program("git"), "--no-optional-locks", "-C", str(root)]
        if Path(_said([*git, "rev-parse", "--show-toplevel"])).resolve() != root:
            return ""
        name = _said([*git, "rev-parse", "HEAD"])
        return f"{name} changed" if _said([*git, "status", "--porcelain", "--untracked-files=no"]) else name
    except (AuditError, OSError, subprocess.SubprocessError):
        return ""  # no git here, or not our repository: git says "dubious ownership"


# --- lines -------------------------------------------------------------------------------------------------


def _line(entry: Mapping[str, Any], head: Mapping[str, Any]) -> str:
    line: dict[str, Any] = {
        **FIELDS,
        **entry,
        "n": head["count"] + 1,
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "who": pwd.getpwuid(os.getuid()).pw_name,
        "commit": commit(),
        "previous": head["hash"],
    }
    line = json.loads(_text(line))  # what a reader gets: names that are numbers are texts there, in another order
    return _text({**line, "hash": _hash(line)})


def _text(content: Mapping[str, Any]) -> str:
    """The one way in which content is written: so a changed byte is found even where it would mean the same."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), default=str) + "\n"


def _hash(line: Mapping[str, Any]) -> str:
    return hashlib.sha256(_text({name: line[name] for name in line if name != "hash"}).encode()).hexdigest()


def _parsed(raw: bytes) -> dict[str, Any] | None:
    """The line, if it is whole, written in our way, and has the hash that it says."""
    try:
        line = json.loads(raw)
        if isinstance(line, dict) and _text(line).encode() == raw and line["hash"] == _hash(line):
            _ = line["n"], line["previous"]
            return line
    except (ValueError, KeyError, RecursionError):
        pass
    return None


def _chain(lines: Sequence[bytes]) -> tuple[list[dict[str, Any]], str | None]:
    """The lines up to the first that does not follow from the one before, and what is wrong there."""
    good: list[dict[str, Any]] = []
    for place, raw in enumerate(lines, 1):
        line = _parsed(raw)
        if line is None:
            torn = place == len(lines) and not raw.endswith(b"\n")
            return good, f"Line {place} was cut off or altered." if torn else f"Line {place} was altered."
        if line["n"] == place and line["previous"] == (good[-1]["hash"] if good else NOTHING):
            good.append(line)
            continue
        return good, _broken(place, line, good, lines[place:])
    return good, None


def _broken(place: int, line: Mapping[str, Any], good: list[dict[str, Any]], rest: Sequence[bytes]) -> str:
    """Why a whole line at `place` does not follow. Its hash is right, which anybody can compute."""
    number = line["n"]
    if good and number == place:  # what was before it is another line now, with its hash made anew
        good.pop()
        return f"Line {place - 1} was altered: the next one follows from another."
    later = {found["n"] for found in map(_parsed, rest) if found}
    if not isinstance(number, int) or number == place:
        return f"Line {place} was altered."
    if number > place:
        if place in later:
            return f"Line {place} was moved: line {number} stands in its place (reordered)."
        many = f"Lines {place} to {number - 1} were" if number - place > 1 else f"Line {place} was"
        return f"{many} removed: line {number} stands in its place."
    if number == place - 1 and good and line["previous"] == good[-1]["previous"] and line["hash"] != good[-1]["hash"]:
        good.pop()
        return f"Line {place - 1} was inserted: the true one stands after it."
    return f"Line {place} was inserted: it says that it is line {number}."


def _against_head(entries: list[dict[str, Any]], head: Mapping[str, Any]) -> str | None:
    count = int(head["count"])
    if len(entries) < count:
        missing = count - len(entries)
        return (
            f"Line {len(entries) + 1} was cut off: the head counts {count}, and the last {missing} of them are gone."
        )
    if len(entries) > count:
        del entries[count:]
        return f"Line {count + 1} was inserted: the head counts only {count}."
    if (entries[-1]["hash"] if entries else NOTHING) != head["hash"]:
        entries.pop()
        return f"Line {count} was altered: the head knows another one."
    return None


# --- the folder --------------------------------------------------------------------------------------------


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """One at a time, for as long as it takes: an append takes some milliseconds."""
    handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _make(folder: Path) -> None:
    """An empty log with its key, there whole or not at all; another process may be the first."""
    make_folder(folder.parent)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", PRINCIPAL, "-f", str(fresh / _KEY)])
        head = _text({"count": 0, "hash": NOTHING})
        write_file(fresh / _HEAD, head)
        write_file(fresh / _SIGNATURE, _sign(fresh / _KEY, head))
        for name in (_LOG, _LOCK):
            os.close(os.open(fresh / name, os.O_CREAT | os.O_WRONLY, 0o600))
        sync_folder(fresh)
        try:
            fresh.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _journal(folder: Path, line: str) -> None:
    head = _text({"count": json.loads(line)["n"], "hash": json.loads(line)["hash"]})
    plan = {
        "line": line,
        "size": (folder / _LOG).stat().st_size,
        "head": head,
        "signature": _sign(folder / _KEY, head),
    }
    write_file(folder / _NEXT, _text(plan))


def _finish(folder: Path) -> None:
    """Do what `next.json` says, from wherever it was left; what is done already is done the same once more."""
    for left in folder.glob(f".{_NEXT}.*"):  # of a run that was killed before it could rename it
        left.unlink()
    path = folder / _NEXT
    try:
        raw = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except ValueError:
        raise _altered(folder, _NEXT) from None
    plan = _plan(folder, raw)
    line = plan["line"].encode()
    with (folder / _LOG).open("r+b") as log:
        log.seek(plan["size"])
        if not line.startswith(log.read()):
            raise _altered(folder, _NEXT)
        log.seek(plan["size"])
        log.write(line)
        log.flush()
        os.fsync(log.fileno())
    write_file(folder / _HEAD, plan["head"])
    write_file(folder / _SIGNATURE, plan["signature"])
    sync_folder(folder)
    path.unlink()


def _plan(folder: Path, raw: str) -> dict[str, Any]:
    """The content of `next.json`, if it is the next step from where the log stands: nothing else is ever done."""
    try:
        plan = json.loads(raw)
        line = _parsed(plan["line"].encode())
        head = json.loads(plan["head"])
        now = (folder / _HEAD).read_text(encoding="utf-8")
        good = (
            line is not None
            and isinstance(plan["size"], int)
            and head == {"count": line["n"], "hash": line["hash"]}
            and _is_signed(folder, plan["head"], plan["signature"])
            # The head is the one before, or the new one already.
            and (now == plan["head"] or now == _text({"count": line["n"] - 1, "hash": line["previous"]}))
            and plan["size"] <= (folder / _LOG).stat().st_size <= plan["size"] + len(plan["line"].encode())
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        good = False
    if not good:
        raise _altered(folder, _NEXT)
    return dict(plan)


def _head(folder: Path) -> dict[str, Any]:
    """The head, if it is signed."""
    try:
        text = (folder / _HEAD).read_text(encoding="utf-8")
        signature = (folder / _SIGNATURE).read_text(encoding="utf-8")
        if _is_signed(folder, text, signature):
            return dict(json.loads(text))
    except (ValueError, FileNotFoundError):
        pass
    raise _altered(folder, _HEAD)


def remedy(folder: Path) -> str:
    """What to do with a log that is not whole."""
    move = shlex.join(["mv", str(folder), f"{folder}.altered"])
    return f"keep the folder as it is for whoever looks into it, and move it away ({move}) to begin a new log."


def _altered(folder: Path, name: str) -> AuditError:
    return AuditError(f"{folder / name} is not what was signed, so the audit log was altered: {remedy(folder)}")


def _check_end(folder: Path, head: Mapping[str, Any]) -> None:
    """See that the log ends where the head says: a new head must not hide that lines were cut off."""
    with (folder / _LOG).open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        step = tail = 0
        text = b""
        while text.count(b"\n") < 2 and tail < size:  # the last line and the end of the one before
            step = step * 2 or 4096
            tail = min(size, step)
            log.seek(size - tail)
            text = log.read(tail)
    line = _parsed(text.splitlines(keepends=True)[-1]) if text else None
    end = (line["n"], line["hash"]) if line else (0, NOTHING) if not text else None
    if end != (head["count"], head["hash"]):
        raise AuditError(
            f"The audit log {folder / _LOG} does not end as its signed head says, so lines were altered: "
            f"`faceswap-oci audit verify` names the first; {remedy(folder)}"
        )


# --- signatures --------------------------------------------------------------------------------------------


def _sign(key: Path, text: str) -> str:
    return _run(["ssh-keygen", "-Y", "sign", "-q", "-f", str(key), "-n", NAMESPACE], text)


def _is_signed(folder: Path, text: str, signature: str) -> bool:
    """Whether that is the signature of the log's own key, byte by byte as ssh-keygen writes it."""
    words = [*(folder / _PUBLIC).read_text(encoding="utf-8").split(), "", ""]
    if _written_anew(signature, words[1]) != signature:
        return False
    with tempfile.TemporaryDirectory() as private:
        signers, given = Path(private) / "signers", Path(private) / "signature"
        signers.write_text(f'{PRINCIPAL} namespaces="{NAMESPACE}" {" ".join(words[:2])}\n', encoding="utf-8")
        given.write_text(signature, encoding="utf-8")
        command = ["ssh-keygen", "-Y", "verify", "-f", str(signers), "-I", PRINCIPAL, "-n", NAMESPACE]
        return _call([*command, "-s", str(given)], text).returncode == 0


def _written_anew(signature: str, public: str) -> str:
    """The file that ssh-keygen makes of that signature: it reads over blanks, bits of base64 and an older version."""
    try:
        raw = base64.b64decode(signature.removeprefix(_BEGIN).removesuffix(_END))[-_SIGNATURE_BYTES:]
        parts = base64.b64decode(public), NAMESPACE.encode(), b"", b"sha512", _joined(b"ssh-ed25519", raw)
    except ValueError:
        return ""
    text = base64.b64encode(b"SSHSIG" + struct.pack(">I", 1) + _joined(*parts)).decode()
    return _BEGIN + "".join(f"{text[at : at + _WIDTH]}\n" for at in range(0, len(text), _WIDTH)) + _END


def _joined(*parts: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def _run(command: Sequence[str], text: str = "") -> str:
    done = _call(command, text)
    if done.returncode != 0:
        words = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        raise AuditError(f"The audit log cannot be signed: ssh-keygen failed ({words}).")
    return done.stdout


def _call(command: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
    program = _program(command[0])
    return subprocess.run(
        [program, *command[1:]], input=text, capture_output=True, text=True, env={"LC_ALL": "C"}, timeout=60
    )


def _said(command: Sequence[str]) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"LC_ALL": "C"}, stdin=subprocess.DEVNULL, timeout=30
    )
    return done.stdout.strip()


def _program(name: str) -> str:
    for folder in _PROGRAMS:
        if os.access(Path(folder) / name, os.X_OK):
            return str(Path(folder) / name)
    raise AuditError(f"{name} is in none of {', '.join(_PROGRAMS)}: install it (openssh-client has ssh-keygen).")
