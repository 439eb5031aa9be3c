"""Boot volumes: born with an instance, untagged, and able to outlive it."""

from .api import Call, does
from .cloud import Resource
from .errors import conflict, incorrect_state, invalid, missing

_STORAGE = "core.BlockstorageClient."
_LARGEST_GB = 32768


def check_vpus(vpus: int) -> None:
    """Raise 400 for a performance that no boot volume has."""
    if vpus not in range(10, 121, 10):
        raise invalid(f"VPUs per GB of a boot volume must be 10, 20, or 30 to 120 in steps of 10, not {vpus}")


def check_size(gigabytes: int, smallest: int) -> None:
    """Raise 400 for a size that the image or the present volume rules out."""
    if not smallest <= gigabytes <= _LARGEST_GB:
        raise invalid(f"The size of the boot volume must be from {smallest} to {_LARGEST_GB} GB, not {gigabytes}")


@does(_STORAGE + "list_boot_volumes", "inspect volume-family")
def _list_boot_volumes(call: Call) -> list[Resource]:
    if "compartmentId" not in call.query:
        raise missing("compartmentId")
    return call.listing("boot_volume")


@does(_STORAGE + "get_boot_volume", "read volume-family")
def _get_boot_volume(call: Call) -> Resource:
    return call.target("boot_volume")


@does(_STORAGE + "update_boot_volume", "use volume-family")
def _update_boot_volume(call: Call) -> Resource:
    volume = _available_volume(call)
    for name in set(call.body) - {"displayName", "freeformTags", "definedTags", "vpusPerGB", "sizeInGBs"}:
        raise invalid(f"The emulator does not change '{name}' of a boot volume")
    check_vpus(call.body.get("vpusPerGB") or 10)
    size = call.body.get("sizeInGBs") or volume.body["sizeInGBs"]
    check_size(size, volume.body["sizeInGBs"])
    return call.change(volume, {**call.body, "sizeInMBs": size * 1024})


@does(_STORAGE + "delete_boot_volume", "manage volume-family")
def _delete_boot_volume(call: Call) -> None:
    volume = _available_volume(call)
    for attachment in call.cloud.all("boot_volume_attachment", call.region, bootVolumeId=volume.id):
        if attachment.state != "DETACHED":
            raise conflict("Boot Volume", volume.id, "Instance", attachment.body["instanceId"])
    call.cloud.move(volume, "TERMINATING", "TERMINATED", call.cloud.waiting / 10)


def _available_volume(call: Call) -> Resource:
    volume = call.target("boot_volume")
    if volume.state != "AVAILABLE":
        raise incorrect_state(f"The boot volume {volume.id} is in state {volume.state}, not AVAILABLE.")
    return volume
