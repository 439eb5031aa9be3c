"""What a launch can choose from: shapes and platform images."""

from typing import Any

from . import catalogue
from .api import Call, does
from .catalogue import SHAPES, Image
from .cloud import Cloud, Resource
from .errors import invalid

_COMPUTE = "core.ComputeClient."
_FAMILY = "instance-family"


def populate(cloud: Cloud) -> None:
    """Put the platform images into each region."""
    for region in cloud.regions:
        for image in catalogue.images():
            body = {
                "compartmentId": None, "displayName": image.name, "createImageAllowed": True,
                "operatingSystem": image.system, "operatingSystemVersion": image.version,
                "launchMode": "NATIVE" if not image.in_transit else "PARAVIRTUALIZED",
                "launchOptions": _launch_options(image), "sizeInMBs": image.size_gb * 1024, "listingType": "NONE",
                "billableSizeInGBs": 3, "freeformTags": {}, "definedTags": {},
                "timeCreated": f"{image.date}T18:04:05.123Z",
            }  # fmt: skip
            cloud.add("image", region, "AVAILABLE", body, image=image)


def _launch_options(image: Image) -> dict[str, Any]:
    return {
        "bootVolumeType": "PARAVIRTUALIZED", "firmware": "UEFI_64", "networkType": "PARAVIRTUALIZED",
        "remoteDataVolumeType": "PARAVIRTUALIZED", "isPvEncryptionInTransitEnabled": image.in_transit,
        "isConsistentVolumeNamingEnabled": True,
    }  # fmt: skip


@does(_COMPUTE + "list_shapes", f"inspect {_FAMILY}")
def _list_shapes(call: Call) -> list[dict[str, Any]]:
    call.compartment(call.query["compartmentId"])
    domains = catalogue.domains(call.region)
    if "availabilityDomain" in call.query:
        domains = [domain_of(call, call.query["availabilityDomain"])]
    shapes = {shape.name: shape for domain in domains for shape in catalogue.offered(call.region, domain)}
    if "imageId" in call.query:
        image = call.get("image", call.query["imageId"]).inner["image"]
        shapes = {name: shape for name, shape in shapes.items() if image.runs_on(shape)}
    return [shape.row() for name, shape in shapes.items() if call.query.get("shape") in (None, name)]


def domain_of(call: Call, name: str) -> str:
    """The name of an availability domain of the region, checked."""
    if name not in catalogue.domains(call.region):
        raise invalid(f"Invalid availabilityDomain '{name}'")
    return name


@does(_COMPUTE + "list_images", f"inspect {_FAMILY}")
def _list_images(call: Call) -> list[Resource]:
    call.compartment(call.query["compartmentId"])
    shape = SHAPES.get(call.query.get("shape", ""))
    filters = ("displayName", "operatingSystem", "operatingSystemVersion", "lifecycleState")
    equal = {name: call.query[name] for name in filters if name in call.query}
    found = call.cloud.all("image", call.region, **equal)
    if "shape" in call.query:
        found = (image for image in found if shape and image.inner["image"].runs_on(shape))
    return call.sorted(list(found))


@does(_COMPUTE + "get_image", f"read {_FAMILY}")
def _get_image(call: Call) -> Resource:
    return call.target("image")


@does(_COMPUTE + "list_image_shape_compatibility_entries", f"inspect {_FAMILY}")
def _list_image_shapes(call: Call) -> list[dict[str, Any]]:
    image = call.target("image")
    fitting = (name for name, shape in SHAPES.items() if image.inner["image"].runs_on(shape))
    return [{"imageId": image.id, "shape": name} for name in fitting]
