"""Runs a command, tells slow from stuck, and ends what is stuck or is to stop.

A command is stuck when its whole session (the engine, its workers, their children) neither computes, nor reads or
writes, nor says anything. Slow is something else: it computes. How little a hung engine does was measured: Faceswap
after `Failed to download model. Exiting.` uses 0.2 % of a core and moves no byte, for as long as one waits.

Standard library only, Python 3.9 or newer.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from watch import Reader

STOP_SECONDS = 300.0  # a large model takes minutes to save
STUCK_SECONDS = 600.0
# By these a command is ended from outside (memory ran out, a person, the machine); a SIGSEGV is its own fault.
FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
AFTER_AN_ERROR = 20  # by so much is patience shorter after an error that the engine told, or a signal that we sent

PAUSE_SECONDS = 5.0  # a loaded host may keep us away for so long

BUSY_SHARE = 0.02  # of one core, ten times what a hung Faceswap uses
BUSY_TICKS = 3  # the clock's own grain, where looks follow fast
BUSY_BYTES = 4096  # a poll through a pipe moves a few

TICKS = os.sysconf("SC_CLK_TCK")


class Activity(NamedTuple):
    """What the processes of a session have done so far: their ticks of CPU time and bytes moved, each by its id."""

    ticks: dict[int, int]
    moved: dict[int, int]


def members(session: int, proc: Path = Path("/proc")) -> dict[int, list[str]]:
    """Return the processes of a session with the fields of their `stat` from the third on, zombies left out."""
    found = {}
    for folder in proc.iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):  # it ended meanwhile
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] != "Z":
                    found[int(folder.name)] = fields
    return found


def activity(session: int, proc: Path = Path("/proc")) -> Activity:
    """Look at what a session has done so far."""
    ticks, moved = {}, {}
    for process, fields in members(session, proc).items():
        ticks[process] = int(fields[11]) + int(fields[12])
        moved[process] = 0
        with contextlib.suppress(OSError, ValueError):
            for line in (proc / str(process) / "io").read_text().splitlines():
                name, _, number = line.partition(":")
                if name in ("rchar", "wchar", "read_bytes", "write_bytes"):
                    moved[process] += int(number)
    return Activity(ticks, moved)


def is_busy(before: Activity, now: Activity, seconds: float) -> bool:
    """Tell whether a session worked between two looks. One that makes or ends processes does."""
    if before.ticks.keys() != now.ticks.keys():
        return True
    ticks = sum(now.ticks.values()) - sum(before.ticks.values())
    moved = sum(now.moved.values()) - sum(before.moved.values())
    return ticks >= max(BUSY_TICKS, BUSY_SHARE * seconds * TICKS) or moved >= BUSY_BYTES


class Watchdog:
    """Knows for how many seconds a session has done nothing."""

    def __init__(self, session: int, every: float) -> None:
        self._session, self._every = session, every
        self._seen, self._looked = activity(session), time.monotonic()
        self._busy = self._looked

    def heard(self) -> None:
        """Take note that it said something."""
        self._busy = time.monotonic()

    def idle(self) -> float:
        """Return the seconds since it last worked, computed, moved or said anything."""
        now = time.monotonic()
        away = now - self._looked
        if away >= self._every:
            seen = activity(self._session)
            if away > 3 * self._every + PAUSE_SECONDS:  # we ourselves were paused, and so perhaps was the session
                self._busy = min(now, self._busy + away)
            elif is_busy(self._seen, seen, away):
                self._busy = now
            self._seen, self._looked = seen, now
        return now - self._busy


class Ending(NamedTuple):
    """How a command ended: its exit code, negative for a signal, and whether it was cut because it was stuck."""

    code: int
    stuck: bool
    idle: float


class Runner:
    """Runs the commands of a stage one after another, and passes on what is to stop them.

    `started` is called with the id of each; `lock` is a descriptor that they inherit: an engine that outlives us
    still holds it. `stuck` is how many seconds a command may do nothing.
    """

    def __init__(
        self, folder: Path, environment: dict[str, str], lock: int, stuck: float, started: Callable[[int], None]
    ) -> None:
        self.stopped = False
        self.environment = environment
        self._folder, self._lock, self._stuck, self._started = folder, lock, stuck, started
        self._process: subprocess.Popen[bytes] | None = None
        self._told = False

    def listen(self) -> None:
        """From now on SIGTERM and SIGINT save and stop; no command may inherit them ignored."""
        signal.signal(signal.SIGTERM, self._interrupt)
        signal.signal(signal.SIGINT, self._interrupt)

    def _interrupt(self, _number: int, _frame: object) -> None:
        self.stopped = True
        self._save_and_end()

    def _save_and_end(self) -> None:
        """Have the command save and end. It is told once: Faceswap gives its save up on a second SIGINT."""
        if not self._told and self._process and self._process.poll() is None:
            self._told = True
            self._process.send_signal(signal.SIGINT)  # Faceswap saves on SIGINT and dies on SIGTERM

    def run(self, words: Sequence[str], reader: Reader, tick: Callable[[], bool] | None = None) -> Ending:
        """Run a command to its end. `tick` is called once a second; when it returns true the command is to end."""
        self._told = False
        self._process = process = subprocess.Popen(
            words,
            cwd=self._folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a terminal's Ctrl-C must reach it through us alone, and once
            pass_fds=[self._lock],
        )
        if self.stopped:
            self._save_and_end()
        self._started(process.pid)
        assert process.stdout is not None
        watchdog = Watchdog(process.pid, every=min(10.0, self._stuck / AFTER_AN_ERROR / 3))
        cut, ending, ticked, talks = Cut(process, self._stuck / AFTER_AN_ERROR), False, time.monotonic(), True
        while talks or process.poll() is None:
            if not talks:
                time.sleep(0.1)
            elif select.select([process.stdout], [], [], min(1.0, self._stuck / 20))[0]:
                block = os.read(process.stdout.fileno(), 65536)
                reader.feed(block)
                watchdog.heard()
                talks = bool(block)
            if time.monotonic() - ticked >= 1.0:
                ticked = time.monotonic()
                if tick and not (ending or self.stopped) and tick():
                    ending = True
                    self._save_and_end()
            idle = watchdog.idle()
            if cut.begun:
                cut.go_on(idle)
            elif self.stopped or ending:
                cut.told()
            elif idle > self._stuck / (AFTER_AN_ERROR if reader.failing else 1):
                reader.note(f"The engine did nothing for {idle:.0f} s: it is ended.")
                cut.begin(idle)
                self._save_and_end()
        process.stdout.close()
        code = process.wait()
        return Ending(code, cut.because is not None, cut.because or 0.0)


class Cut:
    """Ends a command that was told to: SIGTERM and SIGKILL to its session, should it do nothing for `grace` s."""

    def __init__(self, process: subprocess.Popen[bytes], grace: float) -> None:
        self._process, self._grace = process, grace
        self._signals = [signal.SIGTERM, signal.SIGKILL]
        self._since = time.monotonic()
        self.begun = False
        self.because: float | None = None

    def begin(self, idle: float) -> None:
        """Take note that the command is told because it did nothing for `idle` seconds."""
        self.because = idle
        self.told()

    def told(self) -> None:
        """Take note that the command was told to end."""
        self.begun, self._since = True, time.monotonic()

    def go_on(self, idle: float) -> None:
        """Send the next signal if the command still does nothing."""
        if self._signals and min(idle, time.monotonic() - self._since) > self._grace:
            number, self._since = self._signals.pop(0), time.monotonic()
            for process in members(self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)
