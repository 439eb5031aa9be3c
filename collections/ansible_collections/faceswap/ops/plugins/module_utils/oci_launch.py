# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""What is launched, chosen and checked before anything is made; and what Oracle's refusals of a launch mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.faceswap.ops.plugins.module_utils.oci_client import Cloud, OciError, models
from ansible_collections.faceswap.ops.plugins.module_utils.oci_limits import Limit
from ansible_collections.faceswap.ops.plugins.module_utils.run_ledger import Ledger

# Why a try is not made: what a launch may be answered (a limit is known before, too), and what is known before.
REFUSALS = ("capacity", "throttled", "limit", "quota", "not_found", "not_preemptible", "died")
VERDICTS = ("not_entitled", "unknown_shape", "wrong_region", "not_offered", "no_image", *REFUSALS)

# The login that a platform image has (Oracle's documentation, 'Connecting to a Linux instance').
_LOGINS = {"Canonical Ubuntu": "ubuntu", "Oracle Linux": "opc"}


@dataclass(frozen=True)
class Wish:
    """What the user asks for; empty lists and None where the first that fits shall do."""

    shapes: list[str]
    ocpus: float | None
    memory_gb: float | None
    availability_domains: list[str]
    operating_system: str
    operating_system_version: str
    image_id: str | None
    user: str | None
    boot_volume_gb: int
    boot_volume_vpus: int
    preemptible: bool


@dataclass(frozen=True)
class Choice:
    """What fits the wish for one shape in one region, as Oracle has it."""

    image_id: str
    image: str
    pin: dict[str, str]  # for what this image was chosen, for the ledger
    user: str
    encrypted_in_transit: bool
    shape_config: dict[str, float | None] | None


@dataclass
class Candidate:
    """One try: a shape in an availability domain.

    `hourly` is in USD with the boot volume, None where it is not known; `limits` come with what the try needs of
    each; `verdict` is '' or one of VERDICTS, with the sentence `why`.
    """

    region: str
    domain: str
    shape: str
    offered: Any | None = None  # the SDK's Shape
    choice: Choice | None = None
    preemptible: bool = False
    hourly: float | None = None
    limits: list[tuple[Limit, float]] = field(default_factory=list)
    capacity: str = ""
    verdict: str = ""
    why: str = ""

    @property
    def what(self) -> str:
        """The try in words, the same in every run."""
        return f"{self.shape} in {self.domain}" + (", preemptible" if self.preemptible else "")

    def rule_out(self, verdict: str, why: str) -> None:
        """Take the try off the list."""
        self.verdict, self.why = verdict, why


class LaunchRefusedError(Exception):
    """Oracle does not launch this shape here; another try may go better. `kind` is one of REFUSALS."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


def refusal(error: OciError) -> str:
    """Which of REFUSALS the answer to a launch is; '' where the next try would be answered the same."""
    if error.no_capacity:
        return "capacity"
    if error.status == 429:
        return "throttled"
    if error.limit:
        return "quota" if error.code == "QuotaExceeded" else "limit"
    if error.not_found:  # Oracle says so, now and then, of a shape that it has offered a moment before
        return "not_found"
    if error.status == 400 and "preemptible" in str(error).lower():
        return "not_preemptible"
    return ""


def check_place(cloud: Cloud, regions: Sequence[str], compartment: str) -> None:
    """Refuse a region and a compartment in which nothing can be made. Raises OciError."""
    subscribed = cloud.regions()
    for region in regions:
        if region not in subscribed:
            raise OciError(
                f"The tenancy is not subscribed to the region {region} (it is to {', '.join(subscribed)}): use one "
                "of these, or subscribe to it in the console (Governance, Region management)."
            )
    try:
        row = cloud.call(cloud.identity(regions[0]).get_compartment, compartment)
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


def choose(cloud: Cloud, region: str, compartment: str, shape: Any, wish: Wish, ledger: Ledger) -> Choice:
    """Find from what a shape (the SDK's Shape) can be launched in a region. Raises OciError."""
    pin = {
        "region": region,
        "shape": shape.shape,
        "os": wish.operating_system,
        "version": wish.operating_system_version,
    }
    image = _image(cloud, region, compartment, shape.shape, wish, ledger.pinned_image(pin))
    user = wish.user or _LOGINS.get(image.operating_system)
    if user is None:
        raise OciError(f"The login of the image {image.display_name} is not known: name it with user.")
    size_gb = math.ceil((image.size_in_mbs or 0) / 1024)
    if size_gb > wish.boot_volume_gb:
        raise OciError(f"The image {image.display_name} needs {size_gb} GB: set boot_volume_gb to that, or more.")
    options = image.launch_options
    encrypted = bool(options and options.is_pv_encryption_in_transit_enabled)
    config = {"ocpus": wish.ocpus, "memory_in_gbs": wish.memory_gb} if is_flexible(shape) else None
    return Choice(image.id, image.display_name, pin, user, encrypted, config)


def launch_details(wish: Wish, candidate: Candidate, vnic: Any, metadata: dict[str, str]) -> Any:
    """The body of the launch, but for compartment, name and tags. `vnic` is the SDK's CreateVnicDetails."""
    choice = candidate.choice
    assert choice is not None
    config = choice.shape_config
    # The boot volume goes with the instance: kept ones would bill, one for each time that Oracle takes it back.
    ending = models.TerminatePreemptionAction(type="TERMINATE", preserve_boot_volume=False)
    return models.LaunchInstanceDetails(
        availability_domain=candidate.domain,  # and no fault domain: any that has room
        shape=candidate.shape,
        shape_config=models.LaunchInstanceShapeConfigDetails(**config) if config else None,
        source_details=models.InstanceSourceViaImageDetails(
            image_id=choice.image_id,
            boot_volume_size_in_gbs=wish.boot_volume_gb,
            boot_volume_vpus_per_gb=wish.boot_volume_vpus,
        ),
        create_vnic_details=vnic,
        metadata=metadata,
        instance_options=models.InstanceOptions(are_legacy_imds_endpoints_disabled=True),
        is_pv_encryption_in_transit_enabled=choice.encrypted_in_transit,
        preemptible_instance_config=(
            models.PreemptibleInstanceConfigDetails(preemption_action=ending) if candidate.preemptible else None
        ),
    )


def is_flexible(shape: Any) -> bool:
    """Whether a shape (the SDK's Shape) takes OCPUs and memory as asked for."""
    return bool(shape.is_flexible) or shape.shape.endswith(".Flex")


def check_size(shape: Any, wish: Wish) -> None:
    """Refuse OCPUs and memory that do not fit a shape (the SDK's Shape). Raises OciError."""
    if not is_flexible(shape):
        # In a list they may be meant for another shape.
        if (wish.ocpus or wish.memory_gb) and not any(name.endswith(".Flex") for name in wish.shapes):
            raise OciError(f"The shape {shape.shape} has fixed ocpus and memory_gb: leave both out.")
        return
    if wish.ocpus is None or wish.memory_gb is None:
        raise OciError(
            f"The shape {shape.shape} is flexible: say how many ocpus and how much memory_gb it shall have."
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
            raise OciError(f"{name} {value:g} is not what {shape.shape} can have: {limits[0]:g} to {limits[1]:g}.")
    memory = shape.memory_options
    if memory and memory.min_per_ocpu_in_gbs and memory.max_per_ocpu_in_gbs:
        least, most = memory.min_per_ocpu_in_gbs * wish.ocpus, memory.max_per_ocpu_in_gbs * wish.ocpus
        if not least <= wish.memory_gb <= most:
            raise OciError(
                f"memory_gb {wish.memory_gb:g} is not what {shape.shape} can have with {wish.ocpus:g} ocpus: "
                f"{least:g} to {most:g}."
            )


def _image(cloud: Cloud, region: str, compartment: str, shape: str, wish: Wish, pinned: str | None) -> Any:
    """The image asked for; or that which was chosen before; or the newest that fits."""
    client = cloud.compute(region)
    ocid = wish.image_id or pinned
    if ocid:
        try:
            image = cloud.call(client.get_image, ocid)
        except OciError as error:
            if error.not_found and wish.image_id:
                raise OciError(f"There is no image {ocid} in {region}: take its OCID from the console.") from None
            if not error.not_found:
                raise
        else:
            _check_compatible(cloud, client, image, shape)
            return image
    rows = cloud.listing(
        client.list_images,
        compartment,
        operating_system=wish.operating_system,
        operating_system_version=wish.operating_system_version,
        shape=shape,
        lifecycle_state="AVAILABLE",
        sort_by="TIMECREATED",
        sort_order="DESC",
    )
    rows = [row for row in rows if not row.compartment_id]  # someone's own image says nothing of what is in it
    if not rows:
        raise OciError(
            f"There is no image of {wish.operating_system} {wish.operating_system_version} for {shape} in "
            f"{region}: check both names (Canonical Ubuntu 24.04, Oracle Linux 9), or name an image_id."
        )
    _check_compatible(cloud, client, rows[0], shape)
    return rows[0]


def _check_compatible(cloud: Cloud, client: Any, image: Any, shape: str) -> None:
    entries = cloud.listing(client.list_image_shape_compatibility_entries, image.id)
    if shape not in {entry.shape for entry in entries}:
        raise OciError(f"The image {image.display_name} does not run on {shape}: choose another image or shape.")
