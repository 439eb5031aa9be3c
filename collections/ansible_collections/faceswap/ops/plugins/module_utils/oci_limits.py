# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""What may be made: Oracle's limits and the tenancy's own quotas, what is left of them, and what to ask for."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.faceswap.ops.plugins.module_utils.oci_client import SETUP, Cloud, OciError, statement

_ROWS = 1000  # of definitions in a page: the most that the API gives, and more than a service has


@dataclass(frozen=True)
class Limit:
    """A limit at a place. None where it is not known; `unreadable` says why nothing is known of what is left."""

    service: str
    name: str
    scope: str  # AD, REGION, GLOBAL; "" not known
    region: str
    domain: str  # "" unless the limit is one of an availability domain
    used: float | None = None  # in the compartment that was asked about
    available: float | None = None  # to it: what others use and what a quota withholds is subtracted
    quota: float | None = None  # what a quota of the tenancy lets the compartment have
    granted: float | None = None  # what Oracle lets the tenancy have; asked for only when too little is left
    unreadable: str = ""

    @property
    def value(self) -> float | None:
        """How much there can be at most, as far as is known."""
        if self.granted is not None:
            return self.granted
        return None if self.used is None or self.available is None else self.used + self.available

    @property
    def where(self) -> str:
        """The place for people: 'eu-frankfurt-1, Uocm:EU-FRANKFURT-1-AD-1'."""
        return ", ".join(filter(None, (self.region, self.domain)))


class Limits:
    """The limits of a tenancy, each read once, when it is first asked for. Several threads may ask."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._lock = threading.Lock()
        self._read: dict[tuple[str, ...], Future[Any]] = {}

    def of(self, region: str, service: str, name: str, domain: str, compartment: str, amount: float = 1) -> Limit:
        """A limit as it was when first asked for; where `amount` is not left, with what Oracle grants.

        An answer that does not tell, such as that a policy is missing, leaves None and the reason. Raises
        OciError when there is no answer, or the signature is not accepted.
        """
        definitions = self._once(("definitions", region, service), lambda: self._defined(region, service))
        definition = definitions.get(name)
        scope = definition.scope_type if definition else ""
        asked = Limit(service, name, scope, region, domain if scope in ("AD", "") else "")
        if definitions and not definition:
            return replace(asked, unreadable=f"The service {service} has no limit {name} in {region}.")
        key = (region, service, name, asked.domain)
        limit: Limit = self._once(("left", *key, compartment), lambda: self._left(asked, definition, compartment))
        if definition and not suffices(limit, amount):
            rows = self._once(("granted", *key), lambda: self._granted(asked))
            limit = replace(limit, granted=rows[0].value) if rows else limit
            if limit.granted == 0 and limit.available is None:  # Oracle does not count the use of every limit
                limit = replace(limit, available=0, unreadable="")
        return limit

    def _once(self, key: tuple[str, ...], read: Callable[[], Any]) -> Any:
        """What `read` returned, or raised, when it was first called for the key."""
        with self._lock:
            first = key not in self._read
            future = self._read.setdefault(key, Future())
        if first:
            try:
                future.set_result(read())
            except BaseException as error:
                future.set_exception(error)
        return future.result()

    def _defined(self, region: str, service: str) -> dict[str, Any]:
        """The definitions of a service's limits by name; none where they cannot be read."""
        method = self._cloud.limits(region).list_limit_definitions
        rows = _told(self._cloud.listing, method, self._cloud.tenancy, service_name=service, limit=_ROWS)
        return {} if isinstance(rows, OciError) else {row.name: row for row in rows}

    def _left(self, limit: Limit, definition: Any, compartment: str) -> Limit:
        """The limit with what is used and available."""
        if definition and definition.is_resource_availability_supported is False:
            return replace(limit, unreadable=_untold(limit))
        method = self._cloud.limits(limit.region).get_resource_availability
        request = (method, limit.service, limit.name, compartment)
        only = {"availability_domain": limit.domain} if limit.domain else {}
        answer = _told(self._cloud.call, *request, **only)
        if definition is None and limit.domain:
            if isinstance(answer, OciError) and answer.status == 400:  # that is how a limit without domains answers
                limit = replace(limit, domain="")
                answer = _told(self._cloud.call, *request)
            elif not isinstance(answer, OciError):
                limit = replace(limit, scope="AD")
        if isinstance(answer, OciError):
            return replace(limit, unreadable=_unreadable(limit, answer))
        used = answer.used if answer.fractional_usage is None else answer.fractional_usage
        available = answer.available if answer.fractional_availability is None else answer.fractional_availability
        if available is None:
            return replace(limit, unreadable=_untold(limit))
        return replace(limit, used=used, available=available, quota=answer.effective_quota_value)

    def _granted(self, limit: Limit) -> list[Any]:
        """What Oracle grants the tenancy: a row, or none where that cannot be read."""
        method = self._cloud.limits(limit.region).list_limit_values
        only = {"availability_domain": limit.domain} if limit.domain else {}
        rows = _told(self._cloud.listing, method, self._cloud.tenancy, limit.service, name=limit.name, **only)
        return [] if isinstance(rows, OciError) else rows


def needed(limit_name: str, ocpus: float, memory_gb: float, gpus: int) -> float:
    """How much of a limit of the service compute an instance takes: what the limit's name says that it counts."""
    if "core-count" in limit_name:
        return ocpus
    if "memory-count" in limit_name:
        return memory_gb
    return gpus if limit_name.startswith("gpu") else 1


def suffices(limit: Limit, amount: float) -> bool | None:
    """Whether so much is left; None: not known."""
    return None if limit.available is None else limit.available >= amount


def exhausted(limit: Limit, amount: float) -> str:
    """Why so much cannot be had, and what to ask whom for: one sentence."""
    name = f"{limit.name} of service {limit.service}"
    document = f"({SETUP}, 'Limits')"
    if limit.granted != 0:
        if limit.available is None or limit.value is None or limit.available >= amount:
            return f"The limit {name} does not allow {amount:g} more in {limit.where}: ask Oracle for it {document}."
        if limit.quota is not None and limit.used is not None and limit.quota - limit.used <= limit.available:
            return (
                f"A quota of the tenancy holds {name} at {limit.quota:g} for this compartment in {limit.where}, "
                f"{limit.used:g} of that is in use, and {amount:g} more would be needed: raise the quota to "
                f"{_whole(limit.used + amount)} ({SETUP}, 'A cap on costs')."
            )
        if used := limit.value - limit.available:
            return (
                f"Of the limit {name} {used:g} of {limit.value:g} are in use in {limit.where}, and {amount:g} more "
                f"would be needed: terminate what is idle, or ask Oracle for {_whole(used + amount)} {document}."
            )
    return f"The limit {name} is {limit.value:g} in {limit.where}: ask Oracle for {_whole(amount)} {document}."


def _told(ask: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What Oracle answers, be it a refusal: the OciError. Raises it when there is no answer or no signature."""
    try:
        return ask(*args, **kwargs)
    except OciError as error:
        if error.status is None or error.status == 401:
            raise
        return error


def _unreadable(limit: Limit, error: OciError) -> str:
    if not error.not_found:
        return f"What is left of the limit {limit.name} in {limit.where} is not known: {error}"
    return (  # the same for every limit, that it is told once
        f"What is left of the limits in {limit.region} cannot be read: the policy 'Allow group <your group> to "
        f"{statement('get_resource_availability')}' is missing ({SETUP}, 'Policy')."
    )


def _untold(limit: Limit) -> str:
    return f"Oracle does not tell how much of the limit {limit.name} is left in {limit.where}."


def _whole(amount: float) -> int:
    return math.ceil(amount)  # limits are asked for as whole numbers
