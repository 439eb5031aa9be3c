"""LaunchInstance: what a launch must say, and everything that comes into being with an instance."""

import base64
import time
from functools import partial
from typing import Any

from testhosts.machine import Seed

from . import catalogue, rules, work_requests
from .api import Call, does
from .catalogue import SHAPES, Image, Shape, usage
from .cloud import Resource, new_ocid, short_region
from .errors import invalid, missing, no_capacity, not_found
from .images import domain_of
from .instances import gone, preempt_later
from .network import plan_vnic
from .supply import Shortage
from .volumes import check_size, check_vpus

_FAMILY = "instance-family"

# What a launch may say; anything else would be taken and do nothing here, so it is refused.
_LAUNCH_FIELDS = frozenset({
    "availabilityDomain", "compartmentId", "createVnicDetails", "definedTags", "displayName", "extendedMetadata",
    "faultDomain", "freeformTags", "hostnameLabel", "imageId", "instanceOptions", "isPvEncryptionInTransitEnabled",
    "metadata", "shape", "shapeConfig", "sourceDetails", "subnetId", "agentConfig", "availabilityConfig",
    "preemptibleInstanceConfig",
})  # fmt: skip


@does("core.ComputeClient.launch_instance", f"manage {_FAMILY}", "use virtual-network-family", "use volume-family")
def _launch(call: Call) -> Resource:
    body = call.body
    for name, value in body.items():
        if value not in (None, {}, []) and name not in _LAUNCH_FIELDS:
            raise invalid(f"The emulator does not know how to honour '{name}'")
    call.compartment(body["compartmentId"])
    domain = domain_of(call, body["availabilityDomain"])
    if body.get("faultDomain") not in (None, *catalogue.FAULT_DOMAINS):
        raise invalid(f"Invalid faultDomain '{body['faultDomain']}'")
    if not body.get("shape"):
        raise missing("shape")
    shape = SHAPES.get(body["shape"])
    if shape not in catalogue.offered(call.region, domain):
        raise not_found()
    config = _shape_config(shape, body.get("shapeConfig"))
    if body.get("preemptibleInstanceConfig") and not shape.preemptible:
        raise invalid(f"Invalid Preemptible instance shape: {shape.name} (is not supported)")
    image, gigabytes, vpus = _source(call, shape)
    rules.metadata(body)
    details = dict(body.get("createVnicDetails") or {})
    for name in ("subnetId", "hostnameLabel"):
        details.setdefault(name, body.get(name))
    vnic_body, public = plan_vnic(call, details, domain)
    wanted = shape.uses(config["ocpus"], config["memoryInGBs"]) | usage("boot_volume", {"sizeInGBs": gigabytes})
    call.supply.claim(call.region, domain, body["compartmentId"], wanted)
    shortage = call.supply.shortage(call.region, domain, shape.name)
    if shortage and shortage.where == "launch":
        raise no_capacity(shortage.message)

    # From here on nothing is refused any more.
    instance = _add_instance(call, shape, config, image)
    call.cloud.launched += 1
    name = instance.body["displayName"]
    volume = call.cloud.add("boot_volume", call.region, "PROVISIONING", {
        "availabilityDomain": domain, "compartmentId": body["compartmentId"], "imageId": image.id,
        "displayName": f"{name} (Boot Volume)", "sizeInGBs": gigabytes, "sizeInMBs": gigabytes * 1024,
        "vpusPerGB": vpus, "freeformTags": {}, "definedTags": {}, "systemTags": {}, "isHydrated": True,
    })  # fmt: skip
    vnic = call.cloud.add(
        "vnic", call.region, "PROVISIONING", {**vnic_body, "displayName": vnic_body["displayName"] or name}
    )
    address = call.guests.new_address() if public else ""
    _attach(call, instance, volume, vnic, address)
    if address:
        call.guests.create(instance.id, _seed(instance, image.inner["image"], address))
    request = work_requests.begin(call, "LaunchInstance", instance)
    if shortage:
        after = call.cloud.waiting / 2 if shortage.where == "half_way" else call.cloud.waiting
        call.cloud.later(after, partial(_fail, call, instance, request, shortage))
    else:
        running = partial(_running, call, instance, request)
        call.cloud.move(instance, "PROVISIONING", "RUNNING", call.cloud.waiting, running)
    return instance


def _add_instance(call: Call, shape: Shape, config: dict[str, Any], image: Resource) -> Resource:
    """The instance as GetInstance shows it: not all that the launch said is there (the size of the boot volume)."""
    body, encrypted = call.body, bool(call.body.get("isPvEncryptionInTransitEnabled"))
    agent = {"isMonitoringDisabled": False, "isManagementDisabled": False, "areAllPluginsDisabled": False}
    return call.cloud.add("instance", call.region, "PROVISIONING", {
        "availabilityDomain": body["availabilityDomain"], "compartmentId": body["compartmentId"],
        "displayName": body.get("displayName") or f"instance{time.strftime('%Y%m%d%H%M', time.gmtime())}",
        "faultDomain": body.get("faultDomain") or catalogue.FAULT_DOMAINS[0], "imageId": image.id,
        "freeformTags": body.get("freeformTags") or {}, "definedTags": {}, "systemTags": {},
        "metadata": body.get("metadata") or {}, "extendedMetadata": body.get("extendedMetadata") or {},
        "launchMode": image.body["launchMode"], "region": short_region(call.region), "shape": shape.name,
        "shapeConfig": config, "sourceDetails": {"sourceType": "image", "imageId": image.id},
        "launchOptions": {**image.body["launchOptions"], "isPvEncryptionInTransitEnabled": encrypted},
        "instanceOptions": {"areLegacyImdsEndpointsDisabled": False, **(body.get("instanceOptions") or {})},
        "availabilityConfig": {"recoveryAction": "RESTORE_INSTANCE", **(body.get("availabilityConfig") or {})},
        "agentConfig": {**agent, **(body.get("agentConfig") or {})},
        "preemptibleInstanceConfig": _preemption(body.get("preemptibleInstanceConfig")),
    })  # fmt: skip


def _preemption(given: dict[str, Any] | None) -> dict[str, Any] | None:
    return {"preemptionAction": {"preserveBootVolume": False, **given["preemptionAction"]}} if given else None


def _shape_config(shape: Shape, given: dict[str, Any] | None) -> dict[str, Any]:
    ocpus, memory = shape.ocpus, shape.memory
    if shape.flexible:
        if not (given or {}).get("ocpus"):
            raise missing("shapeConfig.ocpus")
        assert given is not None
        if set(given) - {"ocpus", "memoryInGBs"}:
            raise invalid("The emulator knows of shapeConfig only ocpus and memoryInGBs")
        ocpus = given["ocpus"]
        memory = given.get("memoryInGBs") or ocpus * shape.memory
        if not 1 <= ocpus <= shape.max_ocpus or not ocpus <= memory <= min(64 * ocpus, shape.max_ocpus * 12):
            raise invalid(f"The shape {shape.name} cannot have {ocpus} OCPUs with {memory} GB of memory")
    elif given:
        raise invalid(f"shapeConfig is only for flexible shapes: {shape.name} is none")
    config: dict[str, Any] = {
        "ocpus": float(ocpus), "memoryInGBs": float(memory), "gpus": shape.gpus,
        "vcpus": int(ocpus if shape.arm else 2 * ocpus),
        "processorDescription": shape.processor, "networkingBandwidthInGbps": max(1.0, float(ocpus)),
        "maxVnicAttachments": 2, "localDisks": 0,
    }  # fmt: skip
    return {**config, "gpuDescription": shape.gpu} if shape.gpus else config


def _source(call: Call, shape: Shape) -> tuple[Resource, int, int]:
    """The image that the launch asks for, and size (GB) and VPUs per GB of the boot volume."""
    body = call.body
    source = body.get("sourceDetails") or {}
    if source.get("sourceType", "image") != "image":
        raise invalid("The emulator launches from images only")
    if source.get("kmsKeyId") or source.get("instanceSourceImageFilterDetails"):
        raise invalid("The emulator knows neither KMS keys nor image filters")
    image_id = source.get("imageId") or body.get("imageId")
    if not image_id:
        raise missing("sourceDetails.imageId")
    image = call.get("image", image_id)
    if not image.inner["image"].runs_on(shape):
        raise invalid(f"Shape {shape.name} is not valid for image {image.id}.")
    if body.get("isPvEncryptionInTransitEnabled") and not image.inner["image"].in_transit:
        raise invalid(f"The image {image.id} does not support in-transit encryption")
    smallest = max(50, image.inner["image"].size_gb)
    gigabytes = source.get("bootVolumeSizeInGBs") or smallest
    vpus = source.get("bootVolumeVpusPerGB") or 10
    check_size(gigabytes, smallest)
    check_vpus(vpus)
    return image, int(gigabytes), int(vpus)


def _seed(instance: Resource, image: Image, address: str) -> Seed:
    metadata = instance.body["metadata"]
    return Seed(
        address=address,
        user="ubuntu" if image.system == "Canonical Ubuntu" else "opc",
        hostname=instance.body["displayName"],
        authorized_keys=metadata.get("ssh_authorized_keys", ""),
        user_data=base64.b64decode(metadata.get("user_data", "")),
    )


def _attach(call: Call, instance: Resource, volume: Resource, vnic: Resource, address: str) -> None:
    """Make the attachments; halfway to RUNNING they are there, and VNIC and boot volume can be used."""
    common = {
        "availabilityDomain": instance.body["availabilityDomain"], "compartmentId": instance.body["compartmentId"],
        "instanceId": instance.id,
    }  # fmt: skip
    to_vnic = call.cloud.add("vnic_attachment", call.region, "ATTACHING", {
        **common, "subnetId": vnic.body["subnetId"], "nicIndex": 0, "vlanTag": 42,
    })  # fmt: skip
    to_volume = call.cloud.add("boot_volume_attachment", call.region, "ATTACHING", {
        **common, "bootVolumeId": volume.id, "displayName": f"Remote boot attachment for {instance.id}",
        "isPvEncryptionInTransitEnabled": instance.body["launchOptions"]["isPvEncryptionInTransitEnabled"],
    })  # fmt: skip
    instance.inner.update(volume=volume, vnic=vnic, attachments=[to_vnic, to_volume])

    def attached() -> None:
        to_vnic.body["vnicId"] = vnic.id
        if address:
            vnic.body["publicIp"] = address
            instance.inner["public_ip"] = call.cloud.add("public_ip", call.region, "ASSIGNED", {
                "availabilityDomain": common["availabilityDomain"], "compartmentId": common["compartmentId"],
                "assignedEntityType": "PRIVATE_IP", "assignedEntityId": new_ocid("private_ip", call.region),
                "ipAddress": address, "lifetime": "EPHEMERAL", "scope": "AVAILABILITY_DOMAIN",
                "displayName": f"publicip for {vnic.id[-6:]}", "freeformTags": {}, "definedTags": {},
            })  # fmt: skip
        call.cloud.move(vnic, "AVAILABLE")

    call.cloud.move(to_vnic, "ATTACHING", "ATTACHED", call.cloud.waiting / 2, attached)
    call.cloud.move(to_volume, "ATTACHING", "ATTACHED", call.cloud.waiting / 2)
    call.cloud.move(volume, "PROVISIONING", "AVAILABLE", call.cloud.waiting / 2)


def _running(call: Call, instance: Resource, request: Resource) -> None:
    work_requests.finish(request)
    call.guests.start(instance.id)
    preempt_later(call, instance)


def _fail(call: Call, instance: Resource, request: Resource, shortage: Shortage) -> None:
    """The launch was accepted, and then there was no capacity."""
    work_requests.finish(request, shortage.message)
    if shortage.where == "stuck":
        instance.inner["stuck"] = True
        return
    call.guests.remove(instance.id)
    call.cloud.move(instance, "TERMINATED")
    gone(call, instance, keep_volume=False)
