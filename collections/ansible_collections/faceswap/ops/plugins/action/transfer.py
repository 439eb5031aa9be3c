# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Brings files and folders to a host or from it, in pieces over the task's own connection.

Both ends do the same by the same code, `plugin_utils/transfer_end.py`: here it is imported, on the host it is sent
along with each order to a Python that runs it. So there is nothing to install, no temporary file that another user
would have to read, and whatever the connection or become may be, it serves.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.faceswap.ops.plugins.plugin_utils import transfer_end
from ansible_collections.faceswap.ops.plugins.plugin_utils.living_line import LivingLine, terminal_columns

Json = dict[str, Any]

# Of what is sent by one order: as much as goes through in this time, after which progress can be shown.
PIECE_SECONDS = 2.0
PIECE_MIN = 4 << 20
# The SSH plugin gathers what comes back bit by bit and copies all of it each time: there small pieces are faster.
PIECE_MAX = {"host": 64 << 20, "controller": 12 << 20}
FILES_MAX = 500  # in one order
PAUSES = (1, 2, 4, 8, 15)  # seconds between tries at a lost connection, the last again and again
DIFF_LINES = 20

ARGUMENTS: dict[str, dict[str, Any]] = {
    "src": {"type": "str", "required": True},
    "dest": {"type": "str", "required": True},
    "to": {"type": "str", "choices": ["host", "controller"], "default": "host"},
    "mode": {"type": "raw"},
    "exclude": {"type": "list", "elements": "str", "default": []},
    "mirror": {"type": "bool", "default": False},
    "clear": {"type": "bool", "default": False},
    "patience_s": {"type": "int", "default": 120},
}

# Isolated (-I): neither the environment nor the folder it starts in can put another module in the place of one.
LOADER = "import sys;i=sys.stdin.buffer;exec(i.read(int(i.readline())))"


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core ships no types
    """Finds out what `src` and `dest` are, and lets a `Transfer` do the rest."""

    _supports_check_mode = True
    _supports_async = False
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: Json | None = None) -> Json:
        """Return `changed`, `checksum`, `files` and `bytes_sent`."""
        super().run(tmp, task_vars)
        _, spec = self.validate_argument_spec(argument_spec=ARGUMENTS)
        task_vars, to = task_vars or {}, spec["to"]
        name = str(self._task.delegate_to or task_vars.get("inventory_hostname", "localhost"))
        here = "src" if to == "host" else "dest"
        spec[here] = self._loader.path_dwim(spec[here])
        host = Host(self._ask, f"{shlex.quote(self._python(task_vars))} -IS -X utf8 -c {shlex.quote(LOADER)}", name)
        if self._connection.transport == "local":
            _refuse_nested(Path(spec["src"]), Path(spec["dest"]))
        transfer = Transfer(
            source=Controller() if to == "host" else host,
            target=host if to == "host" else Controller(),
            src=spec["src"],
            dest=spec["dest"],
            mode=_mode(spec["mode"], to),
            exclude=spec["exclude"],
            mirror=spec["mirror"],
            clear=spec["clear"],
            patience_s=spec["patience_s"],
            piece_max=PIECE_MAX[to],
            line=LivingLine(str(task_vars.get("inventory_hostname", "localhost")), terminal_columns()),
            reset=self._connection.reset,
        )
        try:
            return transfer.run(check=self._task.check_mode, diff=self._task.diff)
        except AnsibleConnectionFailure as error:
            return {"unreachable": True, "msg": _printable(str(error))}
        except AnsibleError as error:
            # The user whom an earlier task would have made: nothing of it can be there.
            if self._task.check_mode and re.search(r"unknown user|user \S+ does not exist", str(error)):
                return {"changed": True, "msg": f"{name} does not have the user yet."}
            raise
        finally:
            transfer.line.close()

    def _python(self, task_vars: Json) -> str:
        """The interpreter on the host that the user or Ansible has chosen; else the first on the PATH."""
        if self._task.delegate_to:
            task_vars = task_vars.get("ansible_delegated_vars", {}).get(self._task.delegate_to, {})
        chosen = str(self._templar.template(task_vars.get("ansible_python_interpreter") or ""))
        found = (task_vars.get("ansible_facts") or {}).get("discovered_interpreter_python", "python3")
        return chosen if chosen and not chosen.startswith("auto") else str(found)

    def _ask(self, command: str, data: bytes) -> Json:
        answer: Json = self._low_level_execute_command(command, in_data=data)
        return answer


class End(Protocol):
    """Where files are."""

    name: str

    def ask(self, order: Json, data: bytes = b"") -> tuple[Json, bytes]:
        """Have an order carried out; AnsibleActionFail with the sentence of what went wrong."""


class Controller:
    """This machine."""

    name = "the controller"

    def ask(self, order: Json, data: bytes = b"") -> tuple[Json, bytes]:
        """Do it."""
        return _checked(*transfer_end.answer({**order, "where": self.name}, io.BytesIO(data)))


class Host:
    """The task's host. `ask` is given the shell command and its standard input."""

    def __init__(self, ask: Callable[[str, bytes], Json], command: str, name: str) -> None:
        self.name = name
        self._ask = ask
        self._command = command
        program = Path(transfer_end.__file__).read_bytes()
        self._head = b"%d\n%s" % (len(program), program)

    def ask(self, order: Json, data: bytes = b"") -> tuple[Json, bytes]:
        """Do it there; AnsibleConnectionFailure when the connection is lost meanwhile."""
        line = json.dumps({**order, "where": self.name}).encode() + b"\n"
        done = self._ask(self._command, self._head + line + data)
        try:
            _, payload, reply = done["stdout"].rstrip("\n").rsplit("\n", 2)
            return _checked(json.loads(reply), base64.b64decode(payload, validate=True))
        except ValueError:
            said = (done["stderr"] or done["stdout"]).strip()[-500:]
            raise AnsibleActionFail(
                f"No Python 3 answered on {self.name} (exit code {done['rc']}): {said or 'it said nothing'}"
            ) from None


@dataclass
class Transfer:
    """Makes `dest` what `src` is. `piece_max` bounds the bytes of one order; `reset` closes the connection."""

    source: End
    target: End
    src: str
    dest: str
    mode: int | None
    exclude: list[str]
    mirror: bool
    clear: bool
    patience_s: float
    piece_max: int
    line: LivingLine
    reset: Callable[[], None]
    _wanted: Json = field(default_factory=dict)  # the source's list
    _first: Json = field(default_factory=dict)  # what had to be done when the run began
    _proven: set[str] = field(default_factory=set)  # names of which this run has seen the right hash at the target
    _piece: int = PIECE_MIN
    _sent: int = 0
    _missing: float = float("inf")  # bytes at the last look
    _cut_since: float | None = None
    _tries: int = 0

    def run(self, check: bool, diff: bool) -> Json:
        """Return the task's result."""
        wrong: set[str] = set()
        while True:
            try:
                self._wanted = self._wanted or self._list()
                if self._wanted["kind"] == "nothing":
                    return self._nothing(check)
                plan = self._compare()
                if check:
                    break
                again = self._carry_out(plan)
            except AnsibleConnectionFailure as error:
                self._wait(error)
                continue
            if not again:
                break
            if again & wrong:
                raise AnsibleActionFail(
                    f"{_written(self.src, min(again & wrong))} arrived twice with another content than it was sent "
                    "with: something writes to it meanwhile, or a disk is faulty. Run the same command again when it "
                    "is at rest."
                )
            # Once more, with a fresh look at the source: the part may have been wrong, or the file has changed.
            wrong |= again
            self._wanted, self._proven = {}, set()
        return self._result(diff)

    def _list(self) -> Json:
        wanted, _ = self.source.ask({"do": "list", "root": self.src, "exclude": self.exclude})
        if wanted["kind"] == "special":
            raise AnsibleActionFail(f"{self.src} on {self.source.name} is neither a file nor a folder: see `src`.")
        for name in [*wanted["files"], *wanted["folders"]]:
            if (name or wanted["kind"] == "folder") and not _is_below(name):
                raise AnsibleActionFail(
                    f"{self.source.name} names a file {_printable(name)!r}: nothing is taken from it."
                )
        return wanted

    def _nothing(self, check: bool) -> Json:
        """In check mode what an earlier task would have made on the host cannot be there."""
        if check and isinstance(self.source, Host):
            return {"changed": True, "msg": f"{self.src} is not on {self.source.name} yet."}
        raise AnsibleActionFail(f"There is no {self.src} on {self.source.name}: see `src`.")

    def _target_order(self, do: str) -> Json:
        return {"do": do, "root": self.dest, "kind": self._wanted["kind"], "mode": self.mode}

    def _compare(self) -> Json:
        """What is to be done at the target now; AnsibleActionFail where that has no room."""
        wanted = self._wanted
        order = self._target_order("compare")
        order |= {"files": wanted["files"], "folders": wanted["folders"]}
        order |= {"exclude": self.exclude, "mirror": self.mirror, "clear": self.clear}
        plan, _ = self.target.ask({**order, "proven": sorted(self._proven)})
        missing = sum(wanted["files"][name][0] - offset for name, offset in plan["send"].items())
        if missing > plan["free"] and not plan["remove"]:
            where = self.target.name
            raise AnsibleActionFail(transfer_end.full_disk(where, self.dest, plan["free"], missing))
        if missing < self._missing:
            self._cut_since = None  # something has arrived
        self._missing = missing
        self._first = self._first or plan
        return plan

    def _carry_out(self, plan: Json) -> set[str]:
        """Do what the plan says; return the names of the files that arrived wrong."""
        chores = {name: plan[name] for name in ("remove", "folders", "modes")}
        if not plan["send"] and not any(chores.values()):
            return set()
        files, wrong = self._wanted["files"], set[str]()
        total = sum(files[name][0] for name in plan["send"])
        left, before, began = self._missing, self._sent, time.monotonic()
        shown = began
        for slices in self._batches(plan["send"], wrong):
            started = time.monotonic()
            data = b""
            if slices:
                wishes = [[name, offset, length] for name, offset, length in slices]
                reply, data = self.source.ask({"do": "read", "root": self.src, "slices": wishes})
                if short := {row[0] for row, got in zip(slices, reply["lengths"], strict=True) if row[2] != got}:
                    return wrong | short
            order = {**self._target_order("write"), **chores, "need": left}
            order["slices"] = [[name, files[name][1], files[name][0], start, size] for name, start, size in slices]
            reply, _ = self.target.ask(order, data)
            wrong |= set(reply["wrong"])
            self._proven |= {name for name, start, size in slices if start + size == files[name][0]} - wrong
            chores = {key: [] for key in chores}
            self._cut_since = None
            self._sent += len(data)
            left -= len(data)
            now = time.monotonic()
            if len(data) > self._piece / 2:
                factor = min(4.0, max(0.5, PIECE_SECONDS / max(now - started, 0.01)))
                self._piece = round(min(self.piece_max, max(PIECE_MIN, self._piece * factor)))
            if now - shown >= 1:
                shown = now
                self._show(total - left, total, (self._sent - before) / (now - began))
        return wrong

    def _batches(self, send: dict[str, int], wrong: set[str]) -> Iterator[list[tuple[str, int, int]]]:
        """Slices `(name, offset, length)`, as many at a time as one order may carry; at least one list, if empty."""
        batch: list[tuple[str, int, int]] = []
        room = self._piece
        for name, start in send.items():
            size, offset = self._wanted["files"][name][0], start
            while name not in wrong:
                length = min(size - offset, room)
                batch.append((name, offset, length))
                room -= length
                offset += length
                if room <= 0 or len(batch) >= FILES_MAX:
                    yield batch
                    batch, room = [], self._piece
                if offset >= size:
                    break
        if batch or not send:
            yield batch

    def _show(self, done: int, total: int, rate: float) -> None:
        name = _printable(Path(self.src).name)
        text = f"{name} {done * 100 // max(total, 1)} % of {format_bytes(total)}, {format_bytes(rate)}/s"
        self.line.show(text, {"stage": "transfer", "name": name, "done": done, "total": total, "rate": rate})

    def _wait(self, error: AnsibleConnectionFailure) -> None:
        """Close what is left of the connection and pause; when patience is over, or nobody ever answered: raise."""
        host = self.source if isinstance(self.source, Host) else self.target
        reason = (str(error).strip().splitlines() or ["no reason given"])[-1].strip().rstrip(".")
        if not self._first:
            raise AnsibleConnectionFailure(f"{host.name} cannot be reached: {reason}.") from None
        if self._cut_since is None:
            self._cut_since, self._tries = time.monotonic(), 0
            self.line.say(f"{_printable(Path(self.src).name)}: the connection was lost, trying again")
        pause = PAUSES[min(self._tries, len(PAUSES) - 1)]
        self._tries += 1
        if time.monotonic() + pause - self._cut_since > self.patience_s:
            raise AnsibleConnectionFailure(
                f"The connection to {host.name} was lost and did not come back within {self.patience_s:g} s "
                f"({reason}). Run the same command again when it is there: it goes on where it stopped."
            ) from None
        with suppress(AnsibleError):
            self.reset()
        time.sleep(pause)
        self._piece = PIECE_MIN

    def _result(self, diff: bool) -> Json:
        first = self._first
        result: Json = {
            "changed": any(first[what] for what in ("send", "modes", "folders", "remove")),
            "checksum": checksum(self._wanted),
            "files": len(self._wanted["files"]),
            "bytes_sent": self._sent,
        }
        if diff and result["changed"]:
            lines = [f"send {_written(self.src, name)}" for name in first["send"]]
            lines += [f"make {name}/" for name in first["folders"]]
            lines += [f"change the mode of {_written(self.src, name)}" for name in first["modes"]]
            lines += [f"remove {name}" for name in first["remove"]]
            more = len(lines) - DIFF_LINES
            lines[DIFF_LINES:] = [f"and {more} more"] if more > 0 else []
            result["diff"] = {"prepared": "".join(f"{_printable(line)}\n" for line in lines)}
        return result


def checksum(wanted: Json) -> str:
    """SHA-256 of a file, or of a folder: over its files' hashes and names and its folders' names."""
    if wanted["kind"] == "file":
        return str(wanted["files"][""][1])
    rows = [f"{digest} {name}" for name, (_, digest) in wanted["files"].items()]
    rows += [f"folder {name}" for name in wanted["folders"]]
    return hashlib.sha256("\0".join(sorted(rows)).encode("utf-8", "surrogateescape")).hexdigest()


def format_bytes(count: float) -> str:
    """Return a number of bytes as people say it.

    >>> format_bytes(999), format_bytes(35.2e6), format_bytes(1.23e9)
    ('999 B', '35 MB', '1.2 GB')
    """
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    if count >= 1e6:
        return f"{count / 1e6:.0f} MB"
    return f"{count / 1e3:.0f} kB" if count >= 1e3 else f"{count:.0f} B"


def _checked(reply: Json, data: bytes) -> tuple[Json, bytes]:
    if "error" in reply:
        raise AnsibleActionFail(_printable(reply["error"]))
    return reply, data


def _mode(given: Any, to: str) -> int | None:
    """The mode of files as a number; None: what the umask leaves. AnsibleActionFail where it is none."""
    if given is None:
        return 0o644 if to == "host" else None
    with suppress(ValueError):
        mode = given if isinstance(given, int) else int(str(given), 8)
        if 0 <= mode <= 0o777:
            return mode
    raise AnsibleActionFail(f"{given!r} is no mode of a file: write it in octal and in quotes, such as '0644'.")


def _is_below(name: str) -> bool:
    """Whether a name leads to a place below its folder; what comes from a host need not."""
    return "\0" not in name and not {"", ".", ".."} & set(name.split("/"))


def _refuse_nested(src: Path, dest: Path) -> None:
    src, dest = src.expanduser().resolve(), dest.expanduser().resolve()
    if src in dest.parents or dest in src.parents:
        raise AnsibleActionFail(f"One of {src} and {dest} lies in the other: give another `dest`.")


def _written(src: str, name: str) -> str:
    return name or Path(src).name


def _printable(text: str) -> str:
    """A line without what a terminal would obey, and without bytes that are no text."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
