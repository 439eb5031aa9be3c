"""What a test may change while the emulator runs: faults, policies, supply, and values such as waiting and paging."""

import time
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from .cloud import Cloud, Resource
from .errors import ApiError, not_found
from .supply import Supply

_VERBS = ("inspect", "read", "use", "manage")
_EFFECTS = ("before", "after", "none")


@dataclass
class Fault:
    """Something that goes wrong with one operation (`*`: any), after `skip` calls and for `times` (None: all) calls.

    `effect` "after" carries the request out before it answers with the error, "none" leaves the answer as it is;
    `drop` closes the connection instead of answering; `delay` holds the answer back for so many seconds. `where`
    limits it to calls whose body or query has these values (`*`: any value).
    """

    operation: str
    skip: int = 0
    times: int | None = 1
    status: int = 500
    code: str = "InternalError"
    message: str = "Internal Server Error"
    headers: dict[str, str] = field(default_factory=dict)
    effect: str = "before"
    drop: bool = False
    delay: float = 0.0
    where: dict[str, Any] = field(default_factory=dict)
    scenario: str = ""

    def __post_init__(self) -> None:
        """Check what came from outside."""
        if self.effect not in _EFFECTS:
            raise ValueError(f"effect is one of {', '.join(_EFFECTS)}")

    def hits(self, operation: str, values: dict[str, Any]) -> bool:
        """Whether this call is one that goes wrong; counts the call."""
        if self.operation not in ("*", operation) or self.times == 0:
            return False
        if any(name not in values or wanted not in ("*", values[name]) for name, wanted in self.where.items()):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True

    def error(self) -> ApiError:
        """The error to answer with."""
        return ApiError(self.status, self.code, self.message, self.headers)


@dataclass
class Values:
    """The plain values; seconds unless said otherwise."""

    waiting: float
    page_size: int = 1000  # rows of a List answer
    empty_first_page: bool = False
    terminating: float = 0.0  # how long an instance is TERMINATING; 0: as long as waiting
    unlisted: float = 0.0  # how long List answers leave a new resource out
    clock: float = 0.0  # how far the cloud's clock is ahead
    session_life: int = 0  # the requests after which a session token has expired; 0: never
    preempt_after: float = 0.0  # from RUNNING to the notice to a preemptible instance; 0: never
    preempt_notice: float = 120.0  # from the notice to the termination; Oracle says two minutes


class Settings:
    """All of it. Everything that comes from outside is checked; ValueError says what is wrong."""

    def __init__(self, cloud: Cloud):
        self._cloud = cloud
        self._start = cloud.waiting
        self.reset()

    def reset(self) -> None:
        """As at the start: nothing goes wrong, everything is allowed, and there is enough of all."""
        self.hits: Counter[str] = Counter()  # by scenario: how often it had an effect
        self.values = Values(self._start)
        self.supply = Supply(self._cloud, self.hits)
        self.since = 0.0  # when the present scenarios began, in seconds since the epoch
        self._cloud.waiting = self._start
        self._changed_by: dict[str, str] = {}
        self._sessions: Counter[str] = Counter()
        self._faults: list[Fault] = []
        self._granted: list[tuple[int, str]] | None = None
        self._denied: list[tuple[int, str]] = []

    def set_faults(self, given: Any) -> None:
        """Replace the list of faults (JSON objects with the fields of Fault)."""
        self._faults = _faults(given, "")

    def add_faults(self, given: Any, scenario: str) -> None:
        """Add a scenario's faults to the list."""
        self._faults += _faults(given, scenario)

    def set_policy(self, given: Any) -> None:
        """Replace the policy: `denied` takes statements away; `granted`, where given, is all that is allowed."""
        if set(given) - {"granted", "denied"}:
            raise ValueError("a policy has the fields granted and denied")
        self._granted = [_statement(text) for text in given["granted"]] if given.get("granted") is not None else None
        self._denied = [_statement(text) for text in given.get("denied", [])]

    def set_values(self, given: Any, scenario: str = "") -> None:
        """Change some of the values. Their effects count for the last scenario that named them."""
        now = asdict(self.values)
        if set(given) - set(now):
            raise ValueError(f"settings are {', '.join(now)}")
        changed = {name: type(now[name])(value) for name, value in given.items()}
        self.values = Values(**{**now, **changed})
        self._cloud.waiting = self.values.waiting
        if scenario:
            self._changed_by |= dict.fromkeys(changed, scenario)

    def met(self, value: str) -> None:
        """Note that one of the values had an effect."""
        self.hits[self._changed_by.get(value, "")] += 1

    def fault(self, operation: str, values: dict[str, Any]) -> Fault:
        """The fault that hits this call; without one, one that does nothing."""
        for found in self._faults:
            if found.hits(operation, values):
                self.hits[found.scenario] += 1
                return found
        return Fault(operation, effect="none")

    def is_listed(self, resource: Resource) -> bool:
        """Whether List answers show a resource already: those from before the scenario always."""
        if resource.created < self.since or time.time() - resource.created >= self.values.unlisted:
            return True
        self.met("unlisted")
        return False

    def session_ended(self, token: str) -> bool:
        """Whether a session token has been used too often; counts the use."""
        self._sessions[token] += 1
        ended = 0 < self.values.session_life < self._sessions[token]
        if ended:
            self.met("session_life")
        return ended

    def authorize(self, needs: tuple[str, ...]) -> None:
        """Raise 404, as the cloud does, where the policy does not allow what an operation needs."""
        for text in needs:
            rank, family = _statement(text)
            if any(denied <= rank and what in (family, "all-resources") for denied, what in self._denied):
                raise not_found()
            if self._granted is not None and not any(
                granted >= rank and what in (family, "all-resources") for granted, what in self._granted
            ):
                raise not_found()


def _faults(given: Any, scenario: str) -> list[Fault]:
    known = {item.name for item in fields(Fault)} - {"scenario"}
    for item in given:
        if not isinstance(item, dict) or set(item) - known or "operation" not in item:
            raise ValueError(f"a fault has the fields {', '.join(sorted(known))}, and needs operation: {item}")
    return [Fault(**item, scenario=scenario) for item in given]


def _statement(text: str) -> tuple[int, str]:
    verb, _, family = text.partition(" ")
    if verb not in _VERBS or not family or " " in family:
        raise ValueError(f"'{text}' is not one of {', '.join(_VERBS)} and a family, as 'manage instance-family'")
    return _VERBS.index(verb), family
