"""Instances after their launch: power, end, and attachments."""

import time
from functools import partial

from . import rules, work_requests
from .api import Call, does
from .cloud import Resource, stamp
from .errors import incorrect_state, invalid, not_found
from .images import domain_of

_COMPUTE = "core.ComputeClient."
_FAMILY = "instance-family"

_UPDATE_FIELDS = frozenset({"displayName", "freeformTags", "definedTags", "metadata", "extendedMetadata"})
# Each power action: the states it starts from, the one on the way, and the one it ends in.
_ACTIONS = {
    "START": ("STOPPED", "STARTING", "RUNNING"),
    "STOP": ("RUNNING", "STOPPING", "STOPPED"),
    "SOFTSTOP": ("RUNNING", "STOPPING", "STOPPED"),
    "RESET": ("RUNNING", "STOPPING", "RUNNING"),
    "SOFTRESET": ("RUNNING", "STOPPING", "RUNNING"),
}


@does(_COMPUTE + "list_instances", f"inspect {_FAMILY}")
def _list_instances(call: Call) -> list[Resource]:
    return call.listing("instance")


@does(_COMPUTE + "get_instance", f"read {_FAMILY}")
def _get_instance(call: Call) -> Resource:
    return call.target("instance")


@does(_COMPUTE + "update_instance", f"use {_FAMILY}")
def _update_instance(call: Call) -> Resource:
    instance = call.target("instance")
    if instance.state in ("TERMINATING", "TERMINATED"):
        raise incorrect_state(f"The instance {instance.id} is in state {instance.state}.")
    for name in set(call.body) - _UPDATE_FIELDS:
        raise invalid(f"The emulator does not change '{name}' of an instance")
    metadata = call.body.get("metadata")
    for name in ("user_data", "ssh_authorized_keys"):
        if metadata is not None and metadata.get(name) != instance.body["metadata"].get(name):
            raise invalid(f"The metadata '{name}' cannot be changed after launch")
    rules.metadata({**instance.body, **call.body})
    return call.change(instance, call.body)


@does(_COMPUTE + "instance_action", f"use {_FAMILY}")
def _action(call: Call) -> Resource:
    instance = call.target("instance")
    action = _ACTIONS.get(call.query["action"])
    if action is None:
        raise invalid(f"action must be one of {', '.join(_ACTIONS)}")
    if instance.body["preemptibleInstanceConfig"]:
        raise invalid(f"{call.query['action']} is not supported for the preemptible instance {instance.id}")
    source, way, end = action
    if instance.state != source:
        raise incorrect_state(f"The instance {instance.id} is in state {instance.state}, not {source}.")
    if way == "STOPPING":
        call.guests.stop(instance.id)
    arrived = (lambda: call.guests.start(instance.id)) if end == "RUNNING" else None
    call.cloud.move(instance, way, end, call.cloud.waiting, arrived)
    return instance


@does(_COMPUTE + "terminate_instance", f"manage {_FAMILY}", "use volume-family")
def _terminate(call: Call) -> None:
    instance = call.target("instance")
    if instance.state == "TERMINATED":
        raise not_found()
    if instance.state in ("PROVISIONING", "TERMINATING") and not instance.inner.get("stuck"):
        raise incorrect_state(f"The instance {instance.id} is in state {instance.state}: it cannot be terminated.")
    _end(call, instance, keep_volume=bool(call.query.get("preserveBootVolume")))


def _end(call: Call, instance: Resource, keep_volume: bool) -> None:
    instance.inner.pop("stuck", None)
    call.guests.remove(instance.id)
    request = work_requests.begin(call, "TerminateInstance", instance)
    for attachment in instance.inner["attachments"]:
        call.cloud.move(attachment, "DETACHING")
    if not keep_volume:
        call.cloud.move(instance.inner["volume"], "TERMINATING")
    if call.settings.values.terminating:
        call.settings.met("terminating")

    def ended() -> None:
        work_requests.finish(request)
        gone(call, instance, keep_volume)

    after = call.settings.values.terminating or call.cloud.waiting
    call.cloud.move(instance, "TERMINATING", "TERMINATED", after, ended)


def preempt_later(call: Call, instance: Resource) -> None:
    """Have a preemptible instance get its notice and, some time after it, its end, if the settings say so.

    The notice is an event of Oracle's Events service, which is not emulated: the ledger shows it.
    """
    config = instance.body["preemptibleInstanceConfig"]
    if not config or not call.settings.values.preempt_after:
        return

    def notice() -> None:
        if instance.state != "RUNNING":
            return
        call.settings.met("preempt_after")
        action = config["preemptionAction"]
        instance.inner["notices"] = [
            {
                "eventType": "com.oraclecloud.computeapi.instancepreemptionaction", "source": "ComputeApi",
                "eventTime": stamp(time.time()),
                "data": {
                    "resourceId": instance.id, "resourceName": instance.body["displayName"],
                    "availabilityDomain": instance.body["availabilityDomain"],
                    "compartmentId": instance.body["compartmentId"], "freeformTags": instance.body["freeformTags"],
                    "additionalDetails": {"preemptionAction": action["type"]},
                },
            }
        ]  # fmt: skip
        call.cloud.later(call.settings.values.preempt_notice, partial(end, action["preserveBootVolume"]))

    def end(keep_volume: bool) -> None:
        if instance.state == "RUNNING":
            _end(call, instance, keep_volume)

    call.cloud.later(call.settings.values.preempt_after, notice)


def gone(call: Call, instance: Resource, keep_volume: bool) -> None:
    """The instance shows TERMINATED: its boot volume goes with it, its VNIC and address some time later."""
    for attachment in instance.inner["attachments"]:
        call.cloud.move(attachment, "DETACHED")
    volume, vnic, public_ip = instance.inner["volume"], instance.inner["vnic"], instance.inner.get("public_ip")
    if not keep_volume:
        call.cloud.move(volume, "TERMINATED")

    def released() -> None:
        if public_ip:
            call.cloud.move(public_ip, "TERMINATED")

    call.cloud.move(vnic, "TERMINATING", "TERMINATED", call.cloud.waiting / 2, released)


@does(_COMPUTE + "list_vnic_attachments", f"inspect {_FAMILY}")
def _list_vnic_attachments(call: Call) -> list[Resource]:
    return call.listing("vnic_attachment")


@does(_COMPUTE + "get_vnic_attachment", f"read {_FAMILY}")
def _get_vnic_attachment(call: Call) -> Resource:
    return call.target("vnic_attachment")


@does(_COMPUTE + "list_boot_volume_attachments", f"inspect {_FAMILY}")
def _list_boot_volume_attachments(call: Call) -> list[Resource]:
    domain_of(call, call.query["availabilityDomain"])
    return call.listing("boot_volume_attachment")


@does(_COMPUTE + "get_boot_volume_attachment", f"read {_FAMILY}")
def _get_boot_volume_attachment(call: Call) -> Resource:
    return call.target("boot_volume_attachment")
