"""Work requests: how a launch or a termination went."""

import time
from typing import Any

from .api import Call, does
from .cloud import Resource, stamp

_WORK = "work_requests.WorkRequestClient."
_FAMILY = "instance-family"


def begin(call: Call, kind: str, instance: Resource) -> Resource:
    """Begin a work request for an instance, and name it in the answer's headers."""
    now = stamp(time.time())
    body = {
        "operationType": kind, "status": "IN_PROGRESS", "compartmentId": instance.body["compartmentId"],
        "resources": [{"actionType": "IN_PROGRESS", "entityType": "instance", "identifier": instance.id,
                       "entityUri": f"/20160918/instances/{instance.id}"}],
        "percentComplete": 0.0, "timeAccepted": now, "timeStarted": now,
    }  # fmt: skip
    request = call.cloud.add("work_request", call.region, "", body)
    instance.inner["work_request"] = call.answer_headers["opc-work-request-id"] = request.id
    return request


def finish(request: Resource, error: str = "") -> None:
    """End a work request, well or with an error."""
    now = stamp(time.time())
    request.body.update(status="FAILED" if error else "SUCCEEDED", percentComplete=100.0, timeFinished=now)
    if error:
        request.inner["errors"] = [{"code": "InternalError", "message": error, "timestamp": now}]


def _summary(request: Resource, *without: str) -> dict[str, Any]:
    return {name: value for name, value in request.body.items() if name not in ("timeCreated", *without)}


@does(_WORK + "list_work_requests", f"inspect {_FAMILY}")
def _list_work_requests(call: Call) -> list[dict[str, Any]]:
    call.compartment(call.query["compartmentId"])
    found = call.cloud.all("work_request", call.region, compartmentId=call.query["compartmentId"])
    wanted = call.query.get("resourceId")
    return [
        _summary(request, "resources")
        for request in found
        if wanted in (None, request.body["resources"][0]["identifier"]) and call.settings.is_listed(request)
    ]


@does(_WORK + "get_work_request", f"read {_FAMILY}")
def _get_work_request(call: Call) -> dict[str, Any]:
    return _summary(call.target("work_request"))


@does(_WORK + "list_work_request_errors", f"inspect {_FAMILY}")
def _list_errors(call: Call) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = call.target("work_request").inner.get("errors", [])
    return found


@does(_WORK + "list_work_request_logs", f"inspect {_FAMILY}")
def _list_logs(call: Call) -> list[dict[str, Any]]:
    request = call.target("work_request")
    return [{"message": f"{request.body['operationType']} accepted", "timestamp": request.body["timeAccepted"]}]
