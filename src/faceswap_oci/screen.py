"""What a person sees: lines that stay, and one living line below them.

On a terminal the living line is redrawn in place. Elsewhere (a file, a pipe, a CI log) it becomes an
ordinary line, written when nothing was for `interval` seconds.
"""

import os
import re
import time
from collections.abc import Callable
from typing import TextIO

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # a name or a message from a host must not move the cursor


def clock_text(seconds: float) -> str:
    """A duration in seconds as `m:ss`, or `h:mm:ss` from an hour on."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


class Screen:
    """Writes to one stream; `interval` (seconds) counts only where that stream is no terminal."""

    def __init__(self, stream: TextIO, interval: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        """Ask the stream once whether it is a terminal."""
        self._stream = stream
        self._interval = interval
        self._clock = clock
        self._terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._written = clock()

    def line(self, text: str = "") -> None:
        """Write a line that stays, in the place of the living line."""
        self._write(("\r\x1b[K" if self._terminal else "") + _CONTROL.sub(" ", text) + "\n")

    def living(self, text: str) -> bool:
        """Show `text` on the living line. True if that wrote a line that stays."""
        text = _CONTROL.sub(" ", text)
        if self._terminal:
            self._write("\r" + text[: self._width() - 1] + "\x1b[K")
            return False
        if self._clock() - self._written < self._interval:
            return False
        self._write(text + "\n")
        return True

    def clear(self) -> None:
        """Take the living line away."""
        if self._terminal:
            self._write("\r\x1b[K")

    def _width(self) -> int:
        try:  # a pseudo-terminal whose size nobody set answers 0
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except OSError:
            return 80

    def _write(self, text: str) -> None:
        self._written = self._clock()
        self._stream.write(text)
        self._stream.flush()
