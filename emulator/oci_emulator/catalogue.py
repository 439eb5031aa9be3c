"""What the emulated cloud has on offer: shapes, images, and their prices."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Part:
    """A line of the price list: USD (pay as you go) per `metric`; the first `free` units of a month cost nothing."""

    name: str
    metric: str
    category: str
    price: float
    free: int = 0


# Oracle's part numbers, names and prices of March 2026, as a public copy of the list has them.
_VM, _GPU, _BLOCK = "Compute - Virtual Machine", "Compute - GPU", "Storage - Block Volumes"
_OCPU_HOUR, _GB_HOUR, _GPU_HOUR = "OCPU Per Hour", "Gigabyte Per Hour", "GPU Per Hour"
PARTS = {
    "B97384": Part("Compute - Standard - E5 - OCPU", _OCPU_HOUR, _VM, 0.03),
    "B97385": Part("Compute - Standard - E5 - Memory", _GB_HOUR, _VM, 0.002),
    "B93113": Part("Compute - Standard - E4 - OCPU", _OCPU_HOUR, _VM, 0.025),
    "B93114": Part("Compute - Standard - E4 - Memory", _GB_HOUR, _VM, 0.0015),
    "B93297": Part("Compute - Standard - A1 - OCPU", _OCPU_HOUR, _VM, 0.01, free=3000),
    "B93298": Part("Compute - Standard - A1 - Memory", _GB_HOUR, _VM, 0.0015, free=18000),
    "B95909": Part("Compute  - GPU - A10", _GPU_HOUR, _GPU, 2.00),
    "B88518": Part("Compute - Virtual Machine GPU Standard - X7", _GPU_HOUR, _GPU, 1.275),
    "B89734": Part("Compute - GPU Standard - V2", _GPU_HOUR, _GPU, 2.95),
    "B92740": Part("Compute - GPU - E3", _GPU_HOUR, _GPU, 3.05),
    "B91961": Part("Storage - Block Volume - Storage", "Gigabyte Storage Capacity Per Month", _BLOCK, 0.0255),
    "B91962": Part("Storage - Block Volume - Performance Units", "Performance Units Per Gigabyte Per Month", _BLOCK,
                   0.0017),
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """A shape: its size, the limit on it, and the parts it is billed by (a GPU, or an OCPU and a GB; none: free)."""

    name: str
    quota: str
    processor: str
    ocpus: float
    memory: float
    gpus: int = 0
    gpu: str = ""
    arm: bool = False
    flexible: bool = False
    max_ocpus: float = 0
    parts: tuple[str, ...] = ()
    billing: str = "PAID"
    billed_stopped: bool = False
    preemptible: bool = False

    def uses(self, ocpus: float, memory: float) -> dict[str, float]:
        """What one instance takes of which limits."""
        if self.flexible:
            return {self.quota: ocpus, self.quota.replace("-core-", "-memory-"): memory}
        return {self.quota: self.gpus or 1}

    def price(self, ocpus: float, memory: float) -> float:
        """USD per hour."""
        amounts = (self.gpus,) if self.gpus else (ocpus, memory)
        return sum(PARTS[part].price * amount for part, amount in zip(self.parts, amounts, strict=False))

    def row(self) -> dict[str, Any]:
        """The shape as ListShapes shows it."""
        row: dict[str, Any] = {
            "shape": self.name, "processorDescription": self.processor, "ocpus": self.ocpus,
            "memoryInGBs": self.memory, "networkPorts": 1, "networkingBandwidthInGbps": max(1.0, self.ocpus),
            "maxVnicAttachments": 2, "gpus": self.gpus, "localDisks": 0, "isLiveMigrationSupported": not self.gpus,
            "isBilledForStoppedInstance": self.billed_stopped, "billingType": self.billing,
            "quotaNames": list(self.uses(0, 0)), "isSubcore": False, "isFlexible": self.flexible, "rdmaPorts": 0,
        }  # fmt: skip
        if self.gpus:
            row["gpuDescription"] = self.gpu
        if self.flexible:
            row["ocpuOptions"] = {"min": 1.0, "max": self.max_ocpus}
            row["memoryOptions"] = {
                "minInGBs": 1.0, "maxInGBs": self.max_ocpus * 12, "defaultPerOcpuInGBs": self.memory,
                "minPerOcpuInGBs": 1.0, "maxPerOcpuInGBs": 64.0,
            }  # fmt: skip
        return row


_AMD, _ARM = "2.4 GHz AMD EPYC™ 9J14 (Genoa)", "3.0 GHz Ampere® Altra™"
_INTEL = "2.6 GHz Intel® Xeon® Platinum 8358 (Ice Lake)"
_A10, _P100, _V100, _A100 = "NVIDIA® A10", "NVIDIA® Tesla® P100", "NVIDIA® Tesla® V100", "NVIDIA® A100"
SHAPES = {
    shape.name: shape
    for shape in [
        Shape("VM.Standard.E5.Flex", "standard-e5-core-count", _AMD, 1, 16, flexible=True, max_ocpus=94,
              parts=("B97384", "B97385"), preemptible=True),
        Shape("VM.Standard.E4.Flex", "standard-e4-core-count", _AMD, 1, 16, flexible=True, max_ocpus=64,
              parts=("B93113", "B93114"), preemptible=True),
        Shape("VM.Standard.A1.Flex", "standard-a1-core-count", _ARM, 1, 6, arm=True, flexible=True, max_ocpus=80,
              parts=("B93297", "B93298"), billing="LIMITED_FREE", preemptible=True),
        Shape("VM.Standard.E2.1.Micro", "standard-e2-micro-core-count", _AMD, 1, 1, billing="ALWAYS_FREE"),
        Shape("VM.GPU.A10.1", "gpu-a10-count", _INTEL, 15, 240, 1, _A10, parts=("B95909",)),
        Shape("VM.GPU.A10.2", "gpu-a10-count", _INTEL, 30, 480, 2, _A10, parts=("B95909",)),
        Shape("VM.GPU2.1", "gpu2-count", _INTEL, 12, 72, 1, _P100, parts=("B88518",), billed_stopped=True,
              preemptible=True),
        Shape("VM.GPU3.1", "gpu3-count", _INTEL, 6, 90, 1, _V100, parts=("B89734",), billed_stopped=True,
              preemptible=True),
        Shape("VM.GPU3.2", "gpu3-count", _INTEL, 12, 180, 2, _V100, parts=("B89734",), billed_stopped=True,
              preemptible=True),
        Shape("BM.GPU4.8", "gpu4-count", _AMD, 64, 2048, 8, _A100, parts=("B92740",), billed_stopped=True),
    ]
}  # fmt: skip


@dataclass(frozen=True)
class Limit:
    """A service limit: `scope` is AD or REGION, `value` what this tenancy may have in each of them."""

    service: str
    name: str
    scope: str
    value: float
    about: str


LIMITS = {
    limit.name: limit
    for limit in [
        *(
            Limit("compute", f"standard-{family}-{part}-count", "AD", value, f"{title} for {family.upper()} based VM")
            for family in ("e5", "e4", "a1")
            for part, title, value in (("core", "Cores", 100), ("memory", "Memory", 1600))
        ),
        Limit("compute", "standard-e2-micro-core-count", "AD", 2, "Cores for VM.Standard.E2.1.Micro"),
        Limit("compute", "gpu-a10-count", "AD", 4, "GPUs for GPU.A10 based VM and BM Instances"),
        Limit("compute", "gpu2-count", "AD", 2, "GPUs for GPU2 based VM and BM Instances"),
        Limit("compute", "gpu3-count", "AD", 4, "GPUs for GPU3 based VM and BM Instances"),
        Limit("compute", "gpu4-count", "AD", 8, "GPUs for GPU4 based VM and BM Instances"),
        Limit("block-storage", "total-storage-gb", "AD", 51200, "Total Storage (GB)"),
        Limit("vcn", "vcn-count", "REGION", 50, "Virtual Cloud Networks Count"),
    ]
}

FAULT_DOMAINS = ("FAULT-DOMAIN-1", "FAULT-DOMAIN-2", "FAULT-DOMAIN-3")
_BASIC = ("VM.Standard.E5.Flex", "VM.Standard.E4.Flex", "VM.Standard.A1.Flex")
# Which shapes the availability domains with a short offer have; the others have all but the bare metal one.
_OFFER = {
    ("us-ashburn-1", 1): (*_BASIC, "VM.GPU3.1", "VM.GPU3.2"),
    ("us-ashburn-1", 2): (*_BASIC, "VM.GPU.A10.1", "VM.GPU.A10.2", "VM.GPU2.1", "BM.GPU4.8"),
    ("us-phoenix-1", 1): (*_BASIC, "VM.Standard.E2.1.Micro"),
}
_UBUNTU_BUILDS = {"2026.06.28-0": "2026-07-02", "2026.08.30-0": "2026-09-03", "2026.10.31-0": "2026-11-04"}
_ORACLE_BUILDS = {"2026.08.31-0": "2026-09-08", "2026.10.20-0": "2026-10-27"}


def domains(region: str) -> list[str]:
    """The names of a region's availability domains."""
    count = 3 if region == "us-ashburn-1" else 1
    place = region.upper() if count == 1 else region.upper().removesuffix("-1")
    return [f"Uocm:{place}-AD-{number + 1}" for number in range(count)]


def offered(region: str, domain: str) -> list[Shape]:
    """The shapes which an availability domain offers."""
    names = _OFFER.get((region, int(domain.rsplit("-", 1)[1])), tuple(set(SHAPES) - {"BM.GPU4.8"}))
    return [shape for name, shape in SHAPES.items() if name in names]


@dataclass(frozen=True)
class Image:
    """A platform image: what ListImages shows, and which shapes can run it."""

    system: str
    version: str
    build: str
    date: str
    arm: bool = False
    gpu: bool = False
    in_transit: bool = True
    size_gb: int = 47

    @property
    def name(self) -> str:
        """The display name, formed as Oracle forms it."""
        kind = ["aarch64"] * self.arm + ["Gen2-GPU"] * self.gpu
        return "-".join([self.system.replace(" ", "-"), self.version.replace(" ", "-"), *kind, self.build])

    def runs_on(self, shape: Shape) -> bool:
        """Images named for GPUs run on GPU shapes only; Ubuntu's plain ones run everywhere of their architecture."""
        if self.arm != shape.arm:
            return False
        if self.gpu:
            return shape.gpus > 0
        return shape.gpus == 0 or self.system == "Canonical Ubuntu"


def images() -> Iterator[Image]:
    """Every platform image, the same in each region."""
    for version in ("24.04", "22.04"):
        for build, date in _UBUNTU_BUILDS.items():
            for arm in (False, True):
                yield Image("Canonical Ubuntu", version, build, date, arm=arm)
    # A minimal build, newer than the rest of its version, that cannot encrypt in transit.
    yield Image("Canonical Ubuntu", "22.04 Minimal", "2026.10.31-0", "2026-11-05", in_transit=False)
    for version in ("9", "8"):
        for build, date in _ORACLE_BUILDS.items():
            for arm, gpu in ((False, False), (True, False), (False, True)):
                yield Image("Oracle Linux", version, build, date, arm=arm, gpu=gpu)


def usage(kind: str, body: dict[str, Any]) -> dict[str, float]:
    """What a resource, or one that is to be, takes of which limits."""
    if kind == "vcn":
        return {"vcn-count": 1}
    if kind == "boot_volume":
        return {"total-storage-gb": body["sizeInGBs"]}
    if kind == "instance":
        return SHAPES[body["shape"]].uses(body["shapeConfig"]["ocpus"], body["shapeConfig"]["memoryInGBs"])
    return {}


def hourly_price(kind: str, state: str, body: dict[str, Any]) -> float:
    """USD per hour of a resource in this state; an instance is counted from the accepted launch until it is gone."""
    if kind == "boot_volume":
        gb_month = PARTS["B91961"].price + PARTS["B91962"].price * body["vpusPerGB"]
        return float(gb_month * body["sizeInGBs"] / 730)
    if kind != "instance":
        return 0.0
    shape = SHAPES[body["shape"]]
    if state == "STOPPED" and not shape.billed_stopped:
        return 0.0
    full = shape.price(body["shapeConfig"]["ocpus"], body["shapeConfig"]["memoryInGBs"])
    return full / 2 if body.get("preemptibleInstanceConfig") else full
