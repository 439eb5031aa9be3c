"""The capacity report: whether hosts are free. It promises nothing, and a launch may find it otherwise."""

import time
from typing import Any

from . import catalogue
from .api import Call, does
from .catalogue import FAULT_DOMAINS, SHAPES
from .cloud import stamp
from .errors import invalid
from .images import domain_of


@does("core.ComputeClient.create_compute_capacity_report", "manage compute-capacity-reports")
def _report(call: Call) -> dict[str, Any]:
    if call.compartment(call.body["compartmentId"]) != call.cloud.tenancy:
        raise invalid("compartmentId of a capacity report must be the root compartment")
    domain = domain_of(call, call.body["availabilityDomain"])
    if not call.body["shapeAvailabilities"]:
        raise invalid("shapeAvailabilities must not be empty")
    return {
        "compartmentId": call.body["compartmentId"], "availabilityDomain": domain, "timeCreated": stamp(time.time()),
        "shapeAvailabilities": [
            {**asked, "availabilityStatus": _status(call, domain, asked)}
            for asked in call.body["shapeAvailabilities"]
        ],
    }  # fmt: skip


def _status(call: Call, domain: str, asked: dict[str, Any]) -> str:
    shape = SHAPES.get(asked["instanceShape"])
    if shape is None:
        raise invalid(f"Invalid instanceShape '{asked['instanceShape']}'")
    if asked.get("faultDomain") not in (None, *FAULT_DOMAINS):
        raise invalid(f"Invalid faultDomain '{asked['faultDomain']}'")
    if shape not in catalogue.offered(call.region, domain):
        return "HARDWARE_NOT_SUPPORTED"
    return call.supply.report(call.region, domain, shape.name)
