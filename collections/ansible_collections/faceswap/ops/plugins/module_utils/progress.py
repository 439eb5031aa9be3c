# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""The text of the living line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def format_progress(progress: Mapping[str, Any]) -> str:
    """Return one line for a stage's progress, as the supervisor writes it to progress.json.

    `rate` is per second and `eta` in seconds; whatever is None is left out.

    >>> format_progress({"stage": "train", "done": 12, "total": 600, "rate": 4.84, "loss_a": 0.0421,
    ...                  "loss_b": 0.0387, "eta": 121})
    'train  12/600  4.8/s  loss A 0.0421  loss B 0.0387  2:01 left'
    """
    words = [str(progress.get("stage", ""))]
    if progress.get("total"):
        words.append(f"{progress.get('done', 0)}/{progress['total']}")
    else:
        words.append("starting" if not progress.get("done") else str(progress["done"]))
    if progress.get("rate"):
        words.append(f"{progress['rate']:.1f}/s" if progress["rate"] >= 0.1 else f"{60 * progress['rate']:.1f}/min")
    if progress.get("gpus"):
        words.append("GPU " + ", ".join(f"{gpu['percent']} %" for gpu in progress["gpus"]))
    for side in "ab":
        loss = progress.get(f"loss_{side}")
        if loss is not None:
            words.append(f"loss {side.upper()} {loss:.4f}")
    if progress.get("eta") is not None:
        words.append(f"{clock(progress['eta'])} left")
    return "  ".join(words)


def clock(seconds: float) -> str:
    """Return seconds as `m:ss` or `h:mm:ss`.

    >>> clock(61.4), clock(3675)
    ('1:01', '1:01:15')
    """
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
