"""Ranges of frames, and commands that work on them side by side.

A range is a pair (first, last) of frame numbers that count from 1; both belong to it. Standard library and tqdm.
"""

import argparse
import os
import re
import selectors
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

COUNTING = re.compile(r"(\d+)/(\d+) \[")  # tqdm's `45/100 [00:02<00:03`
STOPPED = 128 + signal.SIGINT


def split(first: int, last: int, pieces: int) -> list[tuple[int, int]]:
    """Cut the frames from `first` to `last` into `pieces` ranges as even as can be, none of them empty.

    >>> split(1, 10, 3)
    [(1, 4), (5, 7), (8, 10)]
    >>> split(1, 2, 3)
    [(1, 1), (2, 2)]
    """
    count = last - first + 1
    pieces = max(1, min(pieces, count))
    size, longer = divmod(count, pieces)
    starts = [first + number * size + min(number, longer) for number in range(pieces + 1)]
    return [(start, after - 1) for start, after in zip(starts, starts[1:], strict=False)]


def frame_range(text: str) -> tuple[int, int]:
    """First and last frame of a range such as 1-45."""
    match = re.fullmatch(r"(\d+)-(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text} is not a range of frames: write first-last, such as 1-45")
    return int(match[1]), int(match[2])


def run_side_by_side(
    commands: Sequence[Sequence[str]],
    totals: Sequence[int],
    title: str,
    hopeless: re.Pattern[str] | None = None,
    at_once: int | None = None,
) -> None:
    """Run all commands at once, or so many `at_once`, and show their progress as one line of tqdm's form.

    `totals` is how many frames each command counts; what a command counts up to another number is a step of its own
    and not shown. All other lines are passed on. SIGINT and SIGTERM reach every command as SIGINT. Where one
    fails the others are interrupted, and after the last has ended this process ends as the failed one did.
    A line that matches `hopeless` comes from a command that will never end: it is ended, and counts as failed.

    Raises SystemExit with the exit code of the first that failed, or with 130 after a SIGINT; a command that a signal
    ended makes this process end by the same signal, so that whoever started it can tell. Hopeless raises what it is:
    HopelessError with the line.
    """
    children = _Children(hopeless)
    handlers = {number: signal.signal(number, children.stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        bar: tqdm[Any]
        with tqdm(desc=title, total=sum(totals), file=sys.stdout, disable=len(commands) == 1) as bar:
            children.follow(commands, totals, bar, at_once or len(commands))
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if children.stopped:
        raise SystemExit(STOPPED)
    if children.last_words:
        raise HopelessError(children.last_words)
    if children.failure < 0:
        if children.failure != -signal.SIGKILL:
            signal.signal(-children.failure, signal.SIG_DFL)
        sys.stdout.flush()
        os.kill(os.getpid(), -children.failure)
    if children.failure:
        raise SystemExit(children.failure)


class HopelessError(Exception):
    """The line after which a command would have hung for ever."""


class _Children:
    """Commands that run at once: `failure` is the return code of the first that failed, or 0."""

    def __init__(self, hopeless: re.Pattern[str] | None) -> None:
        self.stopped = False
        self.failure = 0
        self.last_words = ""
        self._hopeless = hopeless
        self._running: list[subprocess.Popen[bytes]] = []

    def stop(self, *_: object) -> None:
        """Interrupt all that run; a signal handler."""
        self.stopped = True
        self._interrupt()

    def _interrupt(self) -> None:
        for child in self._running:
            if child.poll() is None:
                child.send_signal(signal.SIGINT)

    def follow(
        self, commands: Sequence[Sequence[str]], totals: Sequence[int], bar: "tqdm[Any]", at_once: int
    ) -> None:
        """Start the commands, each when there is a place, and read what they say until the last has ended."""
        waiting = list(zip(commands, totals, strict=True))
        with selectors.DefaultSelector() as pipes:
            while True:
                while waiting and len(pipes.get_map()) < at_once and not (self.stopped or self.failure):
                    command, total = waiting.pop(0)
                    # Descriptors pass on: with one of these the supervisor marks the stage as being worked on.
                    child = subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT,
                        close_fds=False,
                    )
                    self._running.append(child)
                    assert child.stdout is not None
                    pipes.register(child.stdout, selectors.EVENT_READ, _Reader(child, total, bar))
                    if self.stopped:  # while it was being started
                        self._interrupt()
                if not pipes.get_map():
                    return
                for key, _ in pipes.select():
                    if not self._listen(key.data):
                        pipes.unregister(key.fileobj)

    def _listen(self, reader: "_Reader") -> bool:
        """Read from one command. Returns whether there will be more."""
        lines = reader.read()
        if lines is None:
            self._fail(reader.child.wait())
            return False
        for line in lines:
            if not self.failure:  # what the others say when they are interrupted would hide why
                tqdm.write(line, file=sys.stdout)  # not behind the progress, on one line with it
                sys.stdout.flush()
                if self._hopeless and self._hopeless.search(line):
                    self.last_words = line
                    reader.child.terminate()
                    self._fail(1)
        return True

    def _fail(self, code: int) -> None:
        if code and not self.failure:
            self.failure = code
            self._interrupt()


class _Reader:
    """Reads what a command says: lines end in a newline or, where they show progress, in a carriage return."""

    def __init__(self, child: subprocess.Popen[bytes], total: int, bar: "tqdm[Any]") -> None:
        self.child = child
        self._total = total
        self._bar = bar
        self._done = 0
        self._rest = b""

    def read(self) -> list[str] | None:
        """Take what there is, count what is progress and return the other lines; None at the end."""
        assert self.child.stdout is not None
        block = os.read(self.child.stdout.fileno(), 65536)
        if not (block or self._rest):
            return None
        *lines, self._rest = re.split(rb"[\r\n]", self._rest + (block or b"\n"))
        return [line for line in map(self._text, lines) if line and not self._count(line)]

    @staticmethod
    def _text(line: bytes) -> str:
        return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line.decode("utf-8", "replace")).rstrip()

    def _count(self, line: str) -> bool:
        """Tell whether a line shows progress that need not be passed on: of one command alone all is."""
        counting = COUNTING.search(line)
        if not counting or self._bar.disable:
            return False
        if int(counting[2]) == self._total:
            self._bar.update(int(counting[1]) - self._done)
            self._done = int(counting[1])
        return True
