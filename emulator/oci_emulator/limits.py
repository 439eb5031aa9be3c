"""The limits service: what the tenancy may have, and what of it is left."""

from typing import Any

from . import catalogue
from .api import Call, does
from .catalogue import LIMITS, Limit
from .errors import invalid, not_found
from .images import domain_of

_LIMITS = "limits.LimitsClient."
_FAMILY = "resource-availability"


@does(_LIMITS + "list_limit_definitions", f"inspect {_FAMILY}")
def _list_definitions(call: Call) -> list[dict[str, Any]]:
    _of_tenancy(call)
    rows = [
        {
            "name": limit.name, "serviceName": limit.service, "description": limit.about, "scopeType": limit.scope,
            "areQuotasSupported": True, "isResourceAvailabilitySupported": True, "isDeprecated": False,
            "isEligibleForLimitIncrease": True, "isDynamic": False,
        }
        for limit in _asked(call)
    ]  # fmt: skip
    return _sorted(call, rows)


@does(_LIMITS + "list_limit_values", f"inspect {_FAMILY}")
def _list_values(call: Call) -> list[dict[str, Any]]:
    _of_tenancy(call)
    rows: list[dict[str, Any]] = []
    for limit in _asked(call):
        domains = catalogue.domains(call.region) if limit.scope == "AD" else [""]
        for domain in domains:
            row = {"name": limit.name, "scopeType": limit.scope, "availabilityDomain": domain or None,
                   "value": int(call.supply.value(limit, call.region, domain))}  # fmt: skip
            if all(call.query.get(name) in (None, row[name]) for name in ("scopeType", "availabilityDomain")):
                rows.append(row)
    return _sorted(call, rows)


@does(_LIMITS + "get_resource_availability", f"read {_FAMILY}")
def _get_availability(call: Call) -> dict[str, Any]:
    _refuse_subscriptions(call)
    compartment = call.compartment(call.query["compartmentId"])
    limit = LIMITS.get(call.path["limitName"])
    if limit is None or limit.service != call.path["serviceName"]:
        raise not_found()
    domain = call.query.get("availabilityDomain", "")
    if bool(domain) != (limit.scope == "AD"):
        rule = "is mandatory" if limit.scope == "AD" else "must be omitted"
        raise invalid(f"availabilityDomain {rule} for the limit {limit.name} with scope {limit.scope}")
    if domain:
        domain_of(call, domain)
    return call.supply.availability(limit, call.region, domain, compartment)


def _of_tenancy(call: Call) -> None:
    _refuse_subscriptions(call)
    if call.query["compartmentId"] != call.cloud.tenancy:
        raise not_found()


def _refuse_subscriptions(call: Call) -> None:
    for name in ("subscriptionId", "externalLocation"):
        if name in call.query:
            raise invalid(f"The emulator does not know how to honour '{name}'")


def _asked(call: Call) -> list[Limit]:
    wanted = (call.query.get("serviceName"), call.query.get("name"))
    return [
        limit for limit in LIMITS.values() if wanted[0] in (None, limit.service) and wanted[1] in (None, limit.name)
    ]


def _sorted(call: Call, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    key = call.query.get("sortBy", "name")
    return sorted(rows, key=lambda row: str(row[key]), reverse=call.query.get("sortOrder") == "DESC")
