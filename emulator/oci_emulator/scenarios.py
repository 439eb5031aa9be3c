"""Scenarios: named troubles, each a file in the folder beside this one, that a test or a person lets loose."""

import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from .settings import Settings
from .supply import LimitValue, Quota, Shortage

_FOLDER = Path(__file__).parent / "scenarios"


@dataclass(frozen=True)
class Scenario:
    """A file's content; the README says what each key may hold."""

    about: str
    faults: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    capacity: list[dict[str, Any]] = field(default_factory=list)
    limits: list[dict[str, Any]] = field(default_factory=list)
    quotas: list[dict[str, Any]] = field(default_factory=list)


@cache
def known() -> dict[str, Scenario]:
    """All scenarios by their names."""
    return {path.stem: Scenario(**yaml.safe_load(path.read_text())) for path in sorted(_FOLDER.glob("*.yml"))}


def play(settings: Settings, names: Any) -> None:
    """Forget what was set before, and let these scenarios loose; none of them: as at the start."""
    if not isinstance(names, list) or (unknown := [name for name in names if name not in known()]):
        told = (
            f"there is no scenario {', '.join(map(str, unknown))}" if isinstance(names, list) else "a list is needed"
        )
        raise ValueError(f"{told}; the scenarios are {', '.join(known())}")
    settings.reset()
    settings.since = time.time()
    for name in names:
        scenario = known()[name]
        settings.hits[name] = 0
        settings.add_faults(scenario.faults, name)
        settings.set_values(scenario.settings, name)
        settings.supply.shortages += [Shortage(**rule, scenario=name) for rule in scenario.capacity]
        settings.supply.limits += [LimitValue(**rule, scenario=name) for rule in scenario.limits]
        settings.supply.quotas += [Quota(**rule, scenario=name) for rule in scenario.quotas]


def hits(settings: Settings) -> dict[str, int]:
    """How often each of the present scenarios had an effect."""
    return {name: count for name, count in settings.hits.items() if name}
