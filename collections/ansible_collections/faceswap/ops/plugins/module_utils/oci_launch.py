# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""What is launched: availability domain, shape and image, chosen and checked before anything is made."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.faceswap.ops.plugins.module_utils.oci_client import Cloud, OciError, models
from ansible_collections.faceswap.ops.plugins.module_utils.run_ledger import Ledger

# The login that a platform image has (Oracle's documentation, 'Connecting to a Linux instance').
_LOGINS = {"Canonical Ubuntu": "ubuntu", "Oracle Linux": "opc"}


@dataclass(frozen=True)
class Wish:
    """What the user asks for; None where the first that fits shall do."""

    shape: str
    ocpus: float | None
    memory_gb: float | None
    availability_domain: str | None
    operating_system: str
    operating_system_version: str
    image_id: str | None
    user: str | None
    boot_volume_gb: int
    boot_volume_vpus: int


@dataclass(frozen=True)
class Choice:
    """What fits the wish, as Oracle has it."""

    availability_domain: str
    image_id: str
    user: str
    encrypted_in_transit: bool
    shape_config: dict[str, float] | None


def check_place(cloud: Cloud, region: str, compartment: str) -> None:
    """Refuse a region and a compartment in which nothing can be made. Raises OciError."""
    subscribed = cloud.regions()
    if region not in subscribed:
        raise OciError(
            f"The tenancy is not subscribed to the region {region} (it is to {', '.join(subscribed)}): use one of "
            "these, or subscribe to it in the console (Governance, Region management)."
        )
    try:
        row = cloud.call(cloud.identity(region).get_compartment, compartment)
    except OciError as error:
        if error.not_found:
            raise OciError(
                f"There is no compartment {compartment}, or the policy 'Allow group <your group> to inspect "
                "compartments in tenancy' is missing: copy its OCID from the console (Identity, Compartments); "
                "docs/oci-setup.md has the policies.",
                error.status,
                error.code,
            ) from None
        raise
    if row.lifecycle_state != "ACTIVE":
        raise OciError(f"The compartment {row.name} is {row.lifecycle_state}: choose an active one.")


def choose(cloud: Cloud, region: str, compartment: str, wish: Wish, ledger: Ledger) -> Choice:
    """Find where and from what the wish can be launched. Raises OciError."""
    domain, shape = _place(cloud, region, compartment, wish)
    config = _shape_config(shape, wish)
    image = _image(cloud, region, compartment, wish, ledger)
    user = wish.user or _LOGINS.get(image.operating_system)
    if user is None:
        raise OciError(f"The login of the image {image.display_name} is not known: name it with user.")
    options = image.launch_options
    encrypted = bool(options and options.is_pv_encryption_in_transit_enabled)
    return Choice(domain, image.id, user, encrypted, config)


def launch_details(
    wish: Wish, choice: Choice, subnet: str, groups: Sequence[str], public: bool, metadata: dict[str, str]
) -> Any:
    """The body of the launch, but for compartment, name and tags."""
    shape_config = choice.shape_config
    return models.LaunchInstanceDetails(
        availability_domain=choice.availability_domain,  # and no fault domain: any that has room
        shape=wish.shape,
        shape_config=models.LaunchInstanceShapeConfigDetails(**shape_config) if shape_config else None,
        source_details=models.InstanceSourceViaImageDetails(
            image_id=choice.image_id,
            boot_volume_size_in_gbs=wish.boot_volume_gb,
            boot_volume_vpus_per_gb=wish.boot_volume_vpus,
        ),
        create_vnic_details=models.CreateVnicDetails(
            subnet_id=subnet, nsg_ids=list(groups), assign_public_ip=public, skip_source_dest_check=False
        ),
        metadata=metadata,
        instance_options=models.InstanceOptions(are_legacy_imds_endpoints_disabled=True),
        is_pv_encryption_in_transit_enabled=choice.encrypted_in_transit,
    )


def _place(cloud: Cloud, region: str, compartment: str, wish: Wish) -> tuple[str, Any]:
    """The availability domain, and the shape as it is offered there."""
    domains = [row.name for row in cloud.listing(cloud.identity(region).list_availability_domains, cloud.tenancy)]
    if wish.availability_domain:
        # People write AD-2 for what Oracle calls Uocm:US-ASHBURN-AD-2.
        named = [name for name in domains if name.endswith(wish.availability_domain)]
        if len(named) != 1:
            raise OciError(
                f"There is no availability domain {wish.availability_domain} in {region}, but {', '.join(domains)}."
            )
        domains = named
    offered: set[str] = set()
    client = cloud.compute(region)
    for domain in domains:
        for row in cloud.listing(client.list_shapes, compartment, availability_domain=domain):
            if row.shape == wish.shape:
                return domain, row
            offered.add(row.shape)
    near = difflib.get_close_matches(wish.shape, sorted(offered), 3, 0.6)
    raise OciError(
        f"The shape {wish.shape} is not offered to this tenancy in {', '.join(domains)}"
        + (f"; near it are {', '.join(near)}" if near else "")
        + ": choose another shape, domain or region, or ask Oracle for a limit (docs/oci-setup.md, 'Limits')."
    )


def _shape_config(shape: Any, wish: Wish) -> dict[str, float] | None:
    asked = {"ocpus": wish.ocpus, "memory_in_gbs": wish.memory_gb}
    if not shape.is_flexible and not shape.shape.endswith(".Flex"):
        if any(asked.values()):
            raise OciError(f"The shape {wish.shape} has fixed ocpus and memory_gb: leave both out.")
        return None
    if wish.ocpus is None or wish.memory_gb is None:
        raise OciError(
            f"The shape {wish.shape} is flexible: say how many ocpus and how much memory_gb it shall have."
        )
    for name, value, limits in (
        ("ocpus", wish.ocpus, shape.ocpu_options and (shape.ocpu_options.min, shape.ocpu_options.max)),
        (
            "memory_gb",
            wish.memory_gb,
            shape.memory_options and (shape.memory_options.min_in_g_bs, shape.memory_options.max_in_g_bs),
        ),
    ):
        if limits and not limits[0] <= value <= limits[1]:
            raise OciError(f"{name} {value:g} is not what {wish.shape} can have: {limits[0]:g} to {limits[1]:g}.")
    return {"ocpus": wish.ocpus, "memory_in_gbs": wish.memory_gb}


def _image(cloud: Cloud, region: str, compartment: str, wish: Wish, ledger: Ledger) -> Any:
    """The image asked for; or that which was chosen before; or the newest that fits, which is then pinned."""
    client = cloud.compute(region)
    wanted = {
        "region": region,
        "shape": wish.shape,
        "os": wish.operating_system,
        "version": wish.operating_system_version,
    }
    ocid = wish.image_id or ledger.pinned_image(wanted)
    if ocid:
        try:
            image = cloud.call(client.get_image, ocid)
        except OciError as error:
            if error.not_found and wish.image_id:
                raise OciError(f"There is no image {ocid} in {region}: take its OCID from the console.") from None
            if not error.not_found:
                raise
        else:
            _check_compatible(cloud, client, image, wish.shape)
            return image
    rows = cloud.listing(
        client.list_images,
        compartment,
        operating_system=wish.operating_system,
        operating_system_version=wish.operating_system_version,
        shape=wish.shape,
        lifecycle_state="AVAILABLE",
        sort_by="TIMECREATED",
        sort_order="DESC",
    )
    rows = [row for row in rows if not row.compartment_id]  # someone's own image says nothing of what is in it
    if not rows:
        raise OciError(
            f"There is no image of {wish.operating_system} {wish.operating_system_version} for {wish.shape} in "
            f"{region}: check both names (Canonical Ubuntu 24.04, Oracle Linux 9), or name an image_id."
        )
    _check_compatible(cloud, client, rows[0], wish.shape)
    ledger.pin_image(wanted, rows[0].id)
    return rows[0]


def _check_compatible(cloud: Cloud, client: Any, image: Any, shape: str) -> None:
    entries = cloud.listing(client.list_image_shape_compatibility_entries, image.id)
    if shape not in {entry.shape for entry in entries}:
        raise OciError(f"The image {image.display_name} does not run on {shape}: choose another image or shape.")
