"""What the cloud has to give, and what of it a tenancy or compartment may have: capacity, limits, quotas.

All three begin as the catalogue says, generously; scenarios take away from them.
"""

import math
from collections import Counter
from dataclasses import dataclass, field

from .catalogue import LIMITS, Limit, usage
from .cloud import Cloud, new_ocid
from .errors import ApiError, limit_exceeded

PLACES = ("launch", "work_request", "half_way", "stuck")


@dataclass
class Shortage:
    """No hosts for a shape in a domain (its end is enough: AD-2); an empty name is any.

    `where` a launch meets it: at once (launch), at the end of provisioning in its work request (work_request), in
    the middle of provisioning (half_way), or as work_request but with an instance that stays PROVISIONING (stuck).
    """

    region: str = ""
    domain: str = ""
    shape: str = ""
    where: str = "launch"
    times: int | None = None  # how many launches; None: every one
    report: str = "OUT_OF_HOST_CAPACITY"  # what the capacity report says meanwhile
    message: str = "Out of host capacity."
    scenario: str = ""

    def __post_init__(self) -> None:
        """Check what came from outside."""
        if self.where not in PLACES:
            raise ValueError(f"where is one of {', '.join(PLACES)}")

    def covers(self, region: str, domain: str, shape: str) -> bool:
        """Whether this is what a launch there meets."""
        return self.times != 0 and _here(self, region, domain) and self.shape in ("", shape)


@dataclass
class LimitValue:
    """Another value for a limit than the catalogue's, in a region and domain or (empty) in all."""

    service: str
    name: str
    value: float
    region: str = ""
    domain: str = ""
    scenario: str = ""

    def __post_init__(self) -> None:
        """Check what came from outside."""
        if self.name not in LIMITS or LIMITS[self.name].service != self.service:
            raise ValueError(f"there is no limit {self.name} of the service {self.service}")


@dataclass
class Quota:
    """What a compartment, by its name, may have of a limit; `hidden`: the limits service does not tell of it."""

    compartment: str
    name: str
    value: float
    hidden: bool = False
    scenario: str = ""
    id: str = field(default_factory=lambda: new_ocid("quota"))

    def __post_init__(self) -> None:
        """Check what came from outside."""
        if self.name not in LIMITS:
            raise ValueError(f"there is no limit {self.name}")


def _here(rule: Shortage | LimitValue, region: str, domain: str) -> bool:
    return rule.region in ("", region) and domain.endswith(rule.domain)


class Supply:
    """Asked at each launch, and by the services that tell of it; counts in `hits` which scenario had a say."""

    def __init__(self, cloud: Cloud, hits: Counter[str]):
        self._cloud, self._hits = cloud, hits
        self.shortages: list[Shortage] = []
        self.limits: list[LimitValue] = []
        self.quotas: list[Quota] = []

    def shortage(self, region: str, domain: str, shape: str) -> Shortage | None:
        """The shortage that a launch meets; counts the launch."""
        for found in self.shortages:
            if found.covers(region, domain, shape):
                if found.times is not None:
                    found.times -= 1
                self._hits[found.scenario] += 1
                return found
        return None

    def report(self, region: str, domain: str, shape: str) -> str:
        """The availability status in the capacity report."""
        for found in self.shortages:
            if found.covers(region, domain, shape):
                self._hits[found.scenario] += found.report != "AVAILABLE"
                return found.report
        return "AVAILABLE"

    def value(self, limit: Limit, region: str, domain: str) -> float:
        """The limit's value; the last scenario that names it wins."""
        for other in reversed(self.limits):
            if other.name == limit.name and _here(other, region, domain):
                self._hits[other.scenario] += 1
                return other.value
        return limit.value

    def used(self, name: str, region: str, domain: str, compartment: str = "") -> float:
        """How much of a limit the living resources take, of one compartment or of all."""
        return sum(
            usage(found.kind, found.body).get(name, 0.0)
            for found in self._cloud.resources.values()
            if found.ended is None
            and found.region == region
            and domain in ("", found.body.get("availabilityDomain"))
            and compartment in ("", found.body.get("compartmentId"))
        )

    def quota(self, name: str, compartment: str) -> Quota | None:
        """The quota of a compartment (an OCID) for a limit."""
        owner = self._cloud.find("compartment", None, compartment)
        title = owner.body["name"] if owner else ""
        return next((found for found in self.quotas if (found.compartment, found.name) == (title, name)), None)

    def claim(self, region: str, domain: str, compartment: str, wanted: dict[str, float]) -> None:
        """Raise 400 where so much more is not allowed."""
        over = [
            name
            for name, amount in wanted.items()
            if self.used(name, region, domain) + amount > self.value(LIMITS[name], region, domain)
        ]
        if over:
            raise limit_exceeded(*over)
        lacking = []
        for name, amount in wanted.items():
            quota = self.quota(name, compartment)
            excess = self.used(name, region, domain, compartment) + amount - quota.value if quota else 0
            if quota and excess > 0:
                self._hits[quota.scenario] += 1
                lacking.append(f"{name} in policy '{quota.id}' by {excess:g}")
        if lacking:
            raise ApiError(
                400, "QuotaExceeded", f"The following compartment quotas were exceeded: {', '.join(lacking)}"
            )

    def availability(self, limit: Limit, region: str, domain: str, compartment: str) -> dict[str, float | int]:
        """What is used and left of a limit, as the limits service shows it."""
        left = max(0.0, self.value(limit, region, domain) - self.used(limit.name, region, domain))
        used = self.used(limit.name, region, domain, compartment)
        quota = self.quota(limit.name, compartment)
        shown: dict[str, float | int] = {}
        if quota and not quota.hidden:
            self._hits[quota.scenario] += 1
            left = max(0.0, min(left, quota.value - used))
            shown["effectiveQuotaValue"] = float(quota.value)
        return {
            "used": math.ceil(used), "available": math.floor(left), "fractionalUsage": float(used),
            "fractionalAvailability": float(left), **shown,
        }  # fmt: skip
