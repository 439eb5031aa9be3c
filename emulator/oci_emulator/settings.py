"""What a test may change while the emulator runs: faults, policies, waiting and paging."""

from dataclasses import dataclass, field, fields
from typing import Any

from .cloud import Cloud
from .errors import ApiError, not_found

_VERBS = ("inspect", "read", "use", "manage")


@dataclass
class Fault:
    """Something that goes wrong with one operation (`*`: with any), after `skip` calls and for `times` calls.

    `effect` "after" carries the request out before it answers with the error; `drop` closes the connection instead
    of answering. `where` limits it to calls whose body or query has these values. `work_request_fails` lets
    LaunchInstance be accepted and fail later in its work request, with this text.
    """

    operation: str
    skip: int = 0
    times: int = 1
    status: int = 500
    code: str = "InternalError"
    message: str = "Internal Server Error"
    headers: dict[str, str] = field(default_factory=dict)
    effect: str = "before"
    drop: bool = False
    where: dict[str, Any] = field(default_factory=dict)
    work_request_fails: str = ""

    def hits(self, operation: str, values: dict[str, Any]) -> bool:
        """Whether this call is one that goes wrong; counts the call."""
        if self.operation not in ("*", operation) or self.times < 1:
            return False
        if any(values.get(name) != value for name, value in self.where.items()):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True

    def error(self) -> ApiError:
        """The error to answer with."""
        return ApiError(self.status, self.code, self.message, self.headers)


class Settings:
    """Faults, policy and paging. Everything that comes from outside is checked; ValueError says what is wrong."""

    def __init__(self, cloud: Cloud):
        self._cloud = cloud
        self.page_size = 1000
        self.empty_first_page = False
        self._faults: list[Fault] = []
        self._granted: list[tuple[int, str]] | None = None
        self._denied: list[tuple[int, str]] = []

    def set_faults(self, given: Any) -> None:
        """Replace the list of faults (JSON objects with the fields of Fault)."""
        known = {item.name for item in fields(Fault)}
        for item in given:
            if not isinstance(item, dict) or set(item) - known or "operation" not in item:
                raise ValueError(f"a fault has the fields {', '.join(sorted(known))}, and needs operation: {item}")
            if item.get("effect", "before") not in ("before", "after"):
                raise ValueError("effect is before or after")
        self._faults = [Fault(**item) for item in given]

    def set_policy(self, given: Any) -> None:
        """Replace the policy: `denied` takes statements away; `granted`, where given, is all that is allowed."""
        if set(given) - {"granted", "denied"}:
            raise ValueError("a policy has the fields granted and denied")
        self._granted = [_statement(text) for text in given["granted"]] if given.get("granted") is not None else None
        self._denied = [_statement(text) for text in given.get("denied", [])]

    def set_values(self, given: Any) -> None:
        """Change `waiting` (seconds), `page_size` or `empty_first_page`."""
        if set(given) - {"waiting", "page_size", "empty_first_page"}:
            raise ValueError("settings are waiting, page_size and empty_first_page")
        self._cloud.waiting = float(given.get("waiting", self._cloud.waiting))
        self.page_size = int(given.get("page_size", self.page_size))
        self.empty_first_page = bool(given.get("empty_first_page", self.empty_first_page))

    def fault(self, operation: str, values: dict[str, Any]) -> Fault | None:
        """The fault, if any, that hits this call."""
        return next((fault for fault in self._faults if fault.hits(operation, values)), None)

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


def _statement(text: str) -> tuple[int, str]:
    verb, _, family = text.partition(" ")
    if verb not in _VERBS or not family or " " in family:
        raise ValueError(f"'{text}' is not one of {', '.join(_VERBS)} and a family, as 'manage instance-family'")
    return _VERBS.index(verb), family
