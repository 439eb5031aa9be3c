"""What exists: the resources of all regions, how their states move with time, and what they cost."""

import heapq
import itertools
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from .catalogue import hourly_price

_SHORT = {"us-ashburn-1": "iad", "us-phoenix-1": "phx"}  # the regions from the time of three-letter names
_OCID_TYPE = {
    "boot_volume": "bootvolume", "dhcp_options": "dhcpoptions", "internet_gateway": "internetgateway",
    "nat_gateway": "natgateway", "network_security_group": "networksecuritygroup", "private_ip": "privateip",
    "public_ip": "publicip", "route_table": "routetable", "security_list": "securitylist",
    "vnic_attachment": "vnicattachment", "boot_volume_attachment": "bootvolumeattachment",
    "work_request": "coreservicesworkrequest",
}  # fmt: skip
_ENDED = frozenset({"TERMINATED", "DETACHED", "DELETED"})
_STAY_LISTED = frozenset({"instance", "boot_volume", "vnic_attachment", "boot_volume_attachment"})
_NOT_IN_LEDGER = frozenset({"compartment", "image", "work_request", "vnic_attachment", "boot_volume_attachment"})


def stamp(seconds: float) -> str:
    """A moment (seconds since the epoch) as the API writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def short_region(region: str) -> str:
    """The region as it stands in OCIDs and in Instance.region."""
    return _SHORT.get(region, region)


def new_ocid(kind: str, region: str = "") -> str:
    """A fresh OCID that looks like the cloud's: 60 random characters of base32."""
    unique = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(60))
    return f"ocid1.{_OCID_TYPE.get(kind, kind)}.oc1.{short_region(region)}.{unique}"


@dataclass(eq=False)
class Resource:
    """One thing in the cloud. `body` is what the API shows of it, with the API's names; `inner` is what it hides."""

    kind: str
    region: str
    body: dict[str, Any]
    inner: dict[str, Any] = field(default_factory=dict)
    etag: str = ""
    created: float = 0.0
    ended: float | None = None
    hourly: float = 0.0
    cost: float = 0.0
    billed_until: float = 0.0
    moves: int = 0

    @property
    def id(self) -> str:
        """The OCID."""
        return str(self.body["id"])

    @property
    def state(self) -> str:
        """The lifecycle state, empty for a kind that has none."""
        return str(self.body.get("lifecycleState", ""))

    @property
    def hidden(self) -> bool:
        """Whether the API answers 404 for it: ended, and of a kind that does not stay listed."""
        return self.ended is not None and self.kind not in _STAY_LISTED


class Cloud:
    """All resources, one lock around them, and a clock that carries their states on."""

    def __init__(self, tenancy: str, regions: list[str], waiting: float):
        self.tenancy = tenancy
        self.regions = regions
        self.waiting = waiting
        self.lock = threading.RLock()
        self.resources: dict[str, Resource] = {}
        self.launched = 0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._wake = threading.Condition(self.lock)
        threading.Thread(target=self._tick, daemon=True).start()

    # Time

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Have the action done after so many seconds, under the lock."""
        with self._wake:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._order), action))
            self._wake.notify()

    def advance(self) -> None:
        """Do what is due. Called by the clock's thread and before each request, so that none sees the past."""
        with self.lock:
            while self._due and self._due[0][0] <= time.monotonic():
                heapq.heappop(self._due)[2]()

    def _tick(self) -> None:
        with self._wake:
            while True:
                self._wake.wait(self._due[0][0] - time.monotonic() if self._due else None)
                self.advance()

    # Resources

    def add(self, kind: str, region: str, state: str, body: dict[str, Any], **inner: Any) -> Resource:
        """Put a new resource into the cloud; the OCID, the creation time and empty tags are added to its body."""
        now = time.time()
        full = {"id": new_ocid(kind, region), "timeCreated": stamp(now), **body}
        if state:
            full["lifecycleState"] = state
        resource = Resource(kind, region, full, inner, created=now, billed_until=now)
        self.resources[resource.id] = resource
        self.touch(resource)
        return resource

    def touch(self, resource: Resource) -> None:
        """Note a change: a new etag, and the price from now on."""
        now = time.time()
        resource.etag = secrets.token_hex(4)
        resource.cost += resource.hourly * (now - resource.billed_until) / 3600
        resource.billed_until = now
        if resource.state in _ENDED and resource.ended is None:
            resource.ended = now
        resource.hourly = 0.0 if resource.ended else hourly_price(resource.kind, resource.state, resource.body)

    def move(
        self,
        resource: Resource,
        state: str,
        then: str = "",
        after: float = 0.0,
        done: Callable[[], None] | None = None,
    ) -> None:
        """Set a state now and, after so many seconds, the next one, unless something else happened meanwhile."""
        resource.body["lifecycleState"] = state
        resource.moves += 1
        self.touch(resource)
        if not then:
            return
        move = resource.moves

        def arrive() -> None:
            if resource.moves == move:
                self.move(resource, then)
                if done:
                    done()

        self.later(after, arrive)

    def all(self, kind: str, region: str | None = None, **equal: Any) -> Iterator[Resource]:
        """Every resource of a kind that the API still shows, of one region or all, whose body has these values."""
        for resource in list(self.resources.values()):
            if resource.kind != kind or resource.hidden or region not in (None, resource.region):
                continue
            if all(resource.body.get(name) == value for name, value in equal.items()):
                yield resource

    def find(self, kind: str, region: str | None, identity: str) -> Resource | None:
        """The resource of this kind and OCID, if the API shows it in this region."""
        resource = self.resources.get(identity)
        if resource is None or resource.kind != kind or resource.hidden or region not in (None, resource.region):
            return None
        return resource

    # Ledger

    def ledger(self) -> dict[str, Any]:
        """What exists or existed, what it cost so far (USD), and what still bills by the hour."""
        with self.lock:
            rows = []
            for resource in self.resources.values():
                if resource.kind in _NOT_IN_LEDGER:
                    continue
                cost = resource.cost + resource.hourly * (time.time() - resource.billed_until) / 3600
                rows.append(
                    {
                        "id": resource.id,
                        "kind": resource.kind,
                        "region": resource.region,
                        "compartment": resource.body.get("compartmentId"),
                        "name": resource.body.get("displayName"),
                        "tags": resource.body.get("freeformTags", {}),
                        "created": stamp(resource.created),
                        "ended": resource.ended and stamp(resource.ended),
                        "state": resource.state,
                        "notices": resource.inner.get("notices", []),
                        "hourly": resource.hourly,
                        "cost": cost,
                    }
                )
            return {"resources": rows, "launched": self.launched, "hourly": sum(row["hourly"] for row in rows)}
