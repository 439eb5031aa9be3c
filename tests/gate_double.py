"""A test double of gate.py that admits every stage: for tests of what the supervisor does apart from consent.

tests/supervised_job.py puts it into a copy of the host's programs. Nothing that is installed knows of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from records import Hashes, Json, StageError


class GateError(StageError):
    """As the gate's, but never raised."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass
class Admission:
    """Whatever it is, it may run."""

    sources: Json = field(default_factory=dict)
    inputs: Json = field(default_factory=dict)

    def about_consents(self) -> Json:
        """Nobody's."""
        return {}

    def still_holds(self) -> None:
        """It does."""

    def look_again(self) -> None:
        """There is nothing to see."""

    def begin(self) -> None:
        """Nothing is written down."""

    def record(self, outputs: Sequence[str]) -> Json:
        """Nothing is written down."""
        return {}


def shape_of(*_: Any) -> None:
    """Any words will do."""


def pictures_of(*_: Any) -> dict[str, Path]:
    """None."""
    return {}


def take_revocations(*_: Any) -> None:
    """Nobody is revoked."""


def admit(job: Path, stage: str, spec: Json, hashes: Hashes | None = None, begun_anew: bool = False) -> Admission:
    """Admit it."""
    return Admission()


def has_unknown_model(*_: Any) -> bool:
    """Every model is known."""
    return False


def admit_by_hand(*_: Any, **__: Any) -> None:
    """Admit it."""


def unrecorded(*_: Any) -> None:
    """Nothing is missing."""
