# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""What an action plugin shows while its task is under way."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any

from ansible.utils.display import Display

display = Display()

PLAIN_SECONDS = 30.0  # between two lines where no terminal can refresh one

# ansible-playbook loads this file before it forks its workers, and those have no terminal any more.
_TERMINAL = os.isatty(1) and os.environ.get("TERM", "dumb") != "dumb"


def terminal_columns() -> int | None:
    """The width of the terminal, None without one."""
    return int(display.columns) if _TERMINAL else None


class LivingLine:
    """One line that is refreshed on a terminal, a line now and then elsewhere, JSON for the wrapper.

    `columns` is the terminal's width, None without a terminal.
    """

    def __init__(self, host: str, columns: int | None) -> None:
        self._prefix = "" if host == "localhost" else f"{host}: "
        self._json = os.environ.get("FACESWAP_OPS_PROGRESS") == "json"
        self._columns = None if self._json else columns
        self._shown = -PLAIN_SECONDS
        self._last = ""

    def show(self, text: str, data: Mapping[str, Any]) -> None:
        """Show where the task stands, if its time has come; `data` is the same for programs."""
        text = self._prefix + text
        if self._json:
            display.display(json.dumps({"faceswap_progress": {**data, "text": text}}))
        elif self._columns:
            display.display("\r\x1b[2K" + text[: self._columns - 1], newline=False)
        elif time.monotonic() - self._shown >= PLAIN_SECONDS and text != self._last:
            self._shown, self._last = time.monotonic(), text
            display.display(text)

    def say(self, text: str) -> None:
        """Show a line that stays."""
        self.close()
        text = self._prefix + text
        display.display(json.dumps({"faceswap_said": text}) if self._json else text)

    def close(self) -> None:
        """Clear the line: the task's own result follows."""
        if self._columns:
            display.display("\r\x1b[2K", newline=False)
