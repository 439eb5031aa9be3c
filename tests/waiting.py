"""Waiting for a condition instead of for some time."""

import time
from collections.abc import Callable
from typing import Any


def wait_until(condition: Callable[[], Any], seconds: float, pause: float = 0.02) -> Any:
    """Return the condition's first true value, asked for every `pause` seconds; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"it did not come to pass in {seconds:g} s"
        time.sleep(pause)
    return value
