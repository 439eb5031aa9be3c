"""What the emulated cloud has on offer: shapes, images, and their prices."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """A shape: its size, the quota that limits it, and its price in USD per hour (flexible: per OCPU and per GB)."""

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
    price: float = 0.0
    price_gb: float = 0.0
    billing: str = "PAID"
    billed_stopped: bool = False

    def row(self) -> dict[str, Any]:
        """The shape as ListShapes shows it."""
        row: dict[str, Any] = {
            "shape": self.name, "processorDescription": self.processor, "ocpus": self.ocpus,
            "memoryInGBs": self.memory, "networkPorts": 1, "networkingBandwidthInGbps": max(1.0, self.ocpus),
            "maxVnicAttachments": 2, "gpus": self.gpus, "localDisks": 0, "isLiveMigrationSupported": not self.gpus,
            "isBilledForStoppedInstance": self.billed_stopped, "billingType": self.billing,
            "quotaNames": [self.quota], "isSubcore": False, "isFlexible": self.flexible, "rdmaPorts": 0,
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
SHAPES = {
    shape.name: shape
    for shape in [
        Shape("VM.Standard.E5.Flex", "standard-e5-core-count", _AMD, 1, 16, flexible=True, max_ocpus=94,
              price=0.03, price_gb=0.002),
        Shape("VM.Standard.E4.Flex", "standard-e4-core-count", _AMD, 1, 16, flexible=True, max_ocpus=64,
              price=0.025, price_gb=0.0015),
        Shape("VM.Standard.A1.Flex", "standard-a1-core-count", _ARM, 1, 6, arm=True, flexible=True, max_ocpus=80,
              price=0.01, price_gb=0.0015, billing="LIMITED_FREE"),
        Shape("VM.Standard.E2.1.Micro", "vm-standard-e2-1-micro-count", _AMD, 1, 1, billing="ALWAYS_FREE"),
        Shape("VM.GPU.A10.1", "gpu-a10-count", _INTEL, 15, 240, 1, "NVIDIA® A10", price=2.00),
        Shape("VM.GPU.A10.2", "gpu-a10-count", _INTEL, 30, 480, 2, "NVIDIA® A10", price=4.00),
        Shape("VM.GPU2.1", "gpu2-count", _INTEL, 12, 72, 1, "NVIDIA® Tesla® P100", price=1.275, billed_stopped=True),
        Shape("VM.GPU3.1", "gpu3-count", _INTEL, 6, 90, 1, "NVIDIA® Tesla® V100", price=2.95, billed_stopped=True),
        Shape("VM.GPU3.2", "gpu3-count", _INTEL, 12, 180, 2, "NVIDIA® Tesla® V100", price=5.90, billed_stopped=True),
        Shape("BM.GPU4.8", "gpu4-count", _AMD, 64, 2048, 8, "NVIDIA® A100", price=24.40, billed_stopped=True),
    ]
}  # fmt: skip

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


def hourly_price(kind: str, state: str, body: dict[str, Any]) -> float:
    """USD per hour of a resource in this state; an instance is counted from the accepted launch until it is gone."""
    if kind == "boot_volume":
        gb_month = 0.0255 + 0.0017 * body["vpusPerGB"]
        return float(gb_month * body["sizeInGBs"] / 730)
    if kind != "instance":
        return 0.0
    shape = SHAPES[body["shape"]]
    if state == "STOPPED" and not shape.billed_stopped:
        return 0.0
    if shape.flexible:
        return float(shape.price * body["shapeConfig"]["ocpus"] + shape.price_gb * body["shapeConfig"]["memoryInGBs"])
    return shape.price
