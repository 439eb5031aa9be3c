"""Tenancy, compartments, regions and availability domains."""

from typing import Any

from . import catalogue
from .api import Call, does
from .cloud import Cloud, Resource
from .errors import invalid, not_found

_REGION_KEYS = {"us-ashburn-1": "IAD", "us-phoenix-1": "PHX", "eu-frankfurt-1": "FRA"}
_IDENTITY = "identity.IdentityClient."


def populate(cloud: Cloud, names: list[str]) -> list[str]:
    """Make the compartments of the tenancy; return their OCIDs."""
    made = []
    for name in names:
        body = {
            "compartmentId": cloud.tenancy, "name": name, "description": f"The compartment {name}",
            "isAccessible": True, "freeformTags": {}, "definedTags": {},
        }  # fmt: skip
        made.append(cloud.add("compartment", "", "ACTIVE", body).id)
    return made


def _region_key(name: str) -> str:
    return _REGION_KEYS.get(name, name.upper())


def _compartment(call: Call, identity: str) -> Any:
    if identity == call.cloud.tenancy:
        return {
            "id": identity, "name": "emulated", "description": "The root compartment", "lifecycleState": "ACTIVE",
            "timeCreated": "2026-01-01T00:00:00.000Z", "freeformTags": {}, "definedTags": {},
            "compartmentId": identity,
        }  # fmt: skip
    found = call.cloud.find("compartment", None, identity)
    if found is None:
        raise not_found()
    return found


@does(_IDENTITY + "get_tenancy", "inspect tenancies")
def _get_tenancy(call: Call) -> dict[str, Any]:
    if call.path["tenancyId"] != call.cloud.tenancy:
        raise not_found()
    return {
        "id": call.cloud.tenancy, "name": "emulated", "description": "emulated", "freeformTags": {},
        "definedTags": {}, "homeRegionKey": _region_key(call.cloud.regions[0]),
    }  # fmt: skip


@does(_IDENTITY + "get_compartment", "inspect compartments")
def _get_compartment(call: Call) -> Any:
    return _compartment(call, call.path["compartmentId"])


@does(_IDENTITY + "list_compartments", "inspect compartments")
def _list_compartments(call: Call) -> list[Resource]:
    _compartment(call, call.query["compartmentId"])
    if call.query.get("compartmentIdInSubtree") and call.query["compartmentId"] != call.cloud.tenancy:
        raise invalid("compartmentIdInSubtree may be true only when compartmentId is the tenancy")
    filters = {name: call.query[name] for name in ("compartmentId", "name", "lifecycleState") if name in call.query}
    return list(call.cloud.all("compartment", None, **filters))


@does(_IDENTITY + "list_availability_domains", "inspect compartments")
def _list_domains(call: Call) -> list[dict[str, Any]]:
    call.compartment(call.query["compartmentId"])
    return [
        {"id": f"ocid1.availabilitydomain.oc1..{name.lower().replace(':', '').replace('-', '')}", "name": name,
         "compartmentId": call.query["compartmentId"]}
        for name in catalogue.domains(call.region)
    ]  # fmt: skip


@does(_IDENTITY + "list_fault_domains", "inspect compartments")
def _list_fault_domains(call: Call) -> list[dict[str, Any]]:
    call.compartment(call.query["compartmentId"])
    domain = call.query["availabilityDomain"]
    if domain not in catalogue.domains(call.region):
        raise not_found()
    return [
        {"id": f"ocid1.faultdomain.oc1..{domain[-1]}{name.lower().replace('-', '')}", "name": name,
         "availabilityDomain": domain, "compartmentId": call.query["compartmentId"]}
        for name in catalogue.FAULT_DOMAINS
    ]  # fmt: skip


@does(_IDENTITY + "list_regions")
def _list_regions(call: Call) -> list[dict[str, Any]]:
    return [{"key": _region_key(name), "name": name} for name in call.cloud.regions]


@does(_IDENTITY + "list_region_subscriptions", "inspect tenancies")
def _list_subscriptions(call: Call) -> list[dict[str, Any]]:
    if call.path["tenancyId"] != call.cloud.tenancy:
        raise not_found()
    return [
        {"regionKey": _region_key(name), "regionName": name, "status": "READY", "isHomeRegion": index == 0}
        for index, name in enumerate(call.cloud.regions)
    ]
