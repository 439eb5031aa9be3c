"""What the command lines of both scripts share: whose words are whose, the engine's description, and the log."""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where the gate is, for those who import this


class EngineError(Exception):
    """One sentence that names the cause and the remedy."""


def apart(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Our own words, and the engine's: those between the first `--` and the next."""
    start = arguments.index("--") if "--" in arguments else len(arguments)
    end = arguments.index("--", start + 1) if "--" in arguments[start + 1 :] else len(arguments)
    return arguments[:start] + arguments[end + 1 :], arguments[start + 1 : end]


def take_engine(path: Path) -> dict[str, Any]:
    """The engine's description, whose environment is from now on ours: job arrays do without the supervisor."""
    try:
        engine: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise EngineError(f"{path} is missing or no description of an engine: install one first.") from None
    os.environ.update(engine.get("environment", {}))
    return engine


def start_log(log: logging.Logger) -> None:
    """Have the lines of `log` look as Faceswap's own."""
    logging.basicConfig(
        stream=sys.stdout, format="%(asctime)s %(levelname)-8s %(message)s", datefmt="%m/%d/%Y %H:%M:%S"
    )
    log.setLevel(logging.INFO)
