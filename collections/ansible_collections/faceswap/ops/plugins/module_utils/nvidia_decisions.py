# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Which driver a host with NVIDIA GPUs gets: tables, and functions that read nothing but their arguments.

Sources, all read in November 2026 and none of them tried on real hardware (docs/gpu.md says what was run where):
[1] docs.nvidia.com, NVIDIA Driver Installation Guide, releases 580 to 620: kernel modules, version locking,
    compute-only installation, Oracle Linux;
[2] the pci.ids list of Debian's package of that name, for Blackwell its later entries;
[3] the listing of NVIDIA's CUDA 13.2 package repository for Ubuntu 24.04, and public scripts that install from the
    repositories for Debian 12, Debian 13 and Enterprise Linux 9.
"""

# It runs on hosts: Python 3.9 is the oldest there (Oracle Linux 9).
from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any


class NoDriverError(Exception):
    """No driver can be chosen; the text is one sentence with the remedy."""


# Last PCI device id of each run of ids, in order, and whose it is [2]. Sound and USB functions of cards have ids in
# between; they are no display devices and never come here.
ARCHITECTURES = (
    (0x133F, ""),  # Kepler and older
    (0x15EF, "Maxwell"),
    (0x15FF, "Pascal"),  # GP100: P100 is 15f7 to 15f9
    (0x16FF, "Maxwell"),
    (0x173F, "Pascal"),
    (0x17FF, "Maxwell"),
    (0x1D7F, "Pascal"),
    (0x1DFF, "Volta"),  # V100 is 1db0 to 1db8, 1df5 and 1df6
    (0x1FFF, "Turing"),
    (0x20FF, "Ampere"),  # GA100: A100 from 20b0 on
    (0x21FF, "Turing"),
    (0x22FF, "Ampere"),  # A10 is 2236
    (0x23FF, "Hopper"),  # H100 from 2330 on, H200 2335
    (0x25FF, "Ampere"),
    (0x28FF, "Ada"),  # L40S is 26b9
    (0x31FF, "Blackwell"),  # B200 is 2901, GB200 2941, B300 from 3182 on; RTX from 2b80 to 2f7f
)
NEWER = "newer than Blackwell"

# The open kernel modules know no card before Turing, and the proprietary ones none from Blackwell on [1].
PROPRIETARY_ONLY = ("Maxwell", "Pascal", "Volta")
OPEN_ONLY = ("Blackwell", NEWER)
LAST_BRANCH_BEFORE_TURING = 580  # branch 590 took Maxwell, Pascal and Volta out [1]


def architecture(device: str) -> str:
    """Return the architecture of a PCI device id such as "2236", or "" for one before Maxwell."""
    number = int(device, 16)
    return next((name for last, name in ARCHITECTURES if number <= last), NEWER)


@dataclass(frozen=True)
class System:
    """One operating system, as NVIDIA's package repositories know it."""

    folder: str  # in the repository's root
    manager: str
    key: str  # name of the signing key's file in the folder
    fingerprint: str
    branch: int  # installed where nothing else is asked for
    oldest: int = 0  # the repository has no older branch
    initramfs: tuple[str, ...] = ("update-initramfs", "-u", "-k", "all")
    before: tuple[str, ...] = ()  # packages that bring the repositories which the driver's packages need
    repositories: tuple[str, ...] = ()  # those of them that may be there and switched off


# The fingerprints: more than one public source each, but that of Debian 13, which one author alone writes down.
# (Debian 13 takes no key that is bound by SHA-1, so its repository has a key of its own, and begins with branch 590.)
KEY_2022 = "EB693B3035CD5710E231E123A4B469963BF863CC"
SYSTEMS = {
    ("debian", "12"): System("debian12", "apt", "3bf863cc.pub", KEY_2022, 580),
    ("debian", "13"): System(
        "debian13", "apt", "8793F200.pub", "02182E60104FCDC26EAE1B8597A5D4CB8793F200", 595, oldest=590
    ),
    ("ubuntu", "24.04"): System("ubuntu2404", "apt", "3bf863cc.pub", KEY_2022, 580),
    ("ol", "9"): System(
        "rhel9",
        "dnf",
        "D42D0685.pub",
        "610C7B14E068A878070DA4E99CD0A493D42D0685",
        580,
        initramfs=("dracut", "--force", "--regenerate-all"),
        before=("oracle-epel-release-el9",),  # EPEL has dkms
        repositories=("ol9_developer_EPEL",),
    ),
}
SYSTEMS_IN_WORDS = "Debian 12 or 13, Ubuntu 24.04 or Oracle Linux 9"


def find_system(name: str, version: str, machine: str) -> System:
    """Return the row of ID and VERSION_ID of os-release, or raise NoDriverError."""
    found = SYSTEMS.get((name, version)) or SYSTEMS.get((name, version.split(".")[0]))
    if found is None:
        raise NoDriverError(
            f"the driver is installed on {SYSTEMS_IN_WORDS}, and this host runs {name or 'an unknown system'} "
            f"{version}: use one of these, or an image with a driver"
        )
    if machine != "x86_64":
        raise NoDriverError(
            f"the driver is installed on x86_64 alone, and this host is {machine}: use an image with a driver"
        )
    return found


def choose_flavour(devices: list[str]) -> str:
    """Return the flavour of modules, "open" or "proprietary", that fits all cards, or raise NoDriverError."""
    kinds = {device: architecture(device) for device in devices}
    too_old = [device for device, kind in kinds.items() if not kind]
    if too_old:
        raise NoDriverError(
            f"the card 10de:{too_old[0]} is older than Maxwell, and no driver that is still built knows it: "
            "use another card"
        )
    closed = [device for device, kind in kinds.items() if kind in PROPRIETARY_ONLY]
    opened = [device for device, kind in kinds.items() if kind in OPEN_ONLY]
    if closed and opened:
        raise NoDriverError(
            f"the cards 10de:{closed[0]} ({kinds[closed[0]]}) and 10de:{opened[0]} ({kinds[opened[0]]}) have no "
            "driver in common: take one of them out"
        )
    return "proprietary" if closed else "open"


def choose_branch(wanted: str, devices: list[str], system: System) -> int:
    """Return the driver branch, the wanted one or the system's; NoDriverError where cards or system lack it."""
    if not (wanted or "0").isdigit():
        raise NoDriverError(
            f"nvidia_cuda_branch is '{wanted}', which is no branch of the driver: write one such as '580'"
        )
    branch = int(wanted or system.branch)
    old = [device for device in devices if architecture(device) in PROPRIETARY_ONLY]
    if old and branch > LAST_BRANCH_BEFORE_TURING:
        card = f"10de:{old[0]} ({architecture(old[0])})"
        if system.oldest > LAST_BRANCH_BEFORE_TURING:
            raise NoDriverError(
                f"branch {LAST_BRANCH_BEFORE_TURING} is the last for the card {card}, and NVIDIA's repository "
                f"{system.folder} begins with {system.oldest}: use Debian 12, Ubuntu 24.04 or Oracle Linux 9"
            )
        raise NoDriverError(
            f"branch {LAST_BRANCH_BEFORE_TURING} is the last for the card {card}, and nvidia_cuda_branch is "
            f"{branch}: set it to {LAST_BRANCH_BEFORE_TURING}"
        )
    if branch < system.oldest:
        raise NoDriverError(
            f"NVIDIA's repository {system.folder} begins with branch {system.oldest}, and nvidia_cuda_branch is "
            f"{branch}: set it to {system.branch}"
        )
    return branch


def version_key(release: str) -> list[tuple[int, int, str]]:
    """Return a key by which kernel releases sort as their numbers do: 6.1.0-9 before 6.1.0-10."""
    parts = re.findall(r"\d+|[^\d]+", release)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]


def newest_kernel(kernels: list[str], running: str) -> str:
    """Return the newest of the kernels that are of the running one's kind, or "" where there is none.

    Oracle Linux has two kinds, RHCK and UEK, side by side; UEK's numbers are the higher ones, whichever is booted.
    """
    return max((one for one in kernels if ("uek" in one) == ("uek" in running)), key=version_key, default="")


def header_packages(name: str, kernel: str) -> tuple[list[str], list[str], list[str]]:
    """Return the packages of a kernel's headers, of all later kernels' headers, and of the newest kernel.

    `name` is the ID of os-release and `kernel` what uname -r says. The last two are empty for a kernel that is not
    the distribution's.
    """
    if name == "ol":
        if "uek" in kernel:  # dnf keeps each release beside the earlier ones, so an update brings its headers too [1]
            return [f"kernel-uek-devel-{kernel}"], ["kernel-uek-devel"], ["kernel-uek", "kernel-uek-devel"]
        return [f"kernel-devel-{kernel}"], ["kernel-devel"], ["kernel", "kernel-devel"]
    exact = [f"linux-headers-{kernel}"]
    if name == "ubuntu":
        found = re.fullmatch(r"(\d+\.\d+)\.\d+-\d+-([a-z][a-z0-9-]*)", kernel)
        if not found:
            return exact, [], []
        release, flavour = found.groups()
        if (
            flavour == "generic" and release != "6.8"
        ):  # 24.04's own kernel is 6.8; a later one is its enablement kernel
            flavour = "generic-hwe-24.04"
    else:
        found = re.search(r"\d[-+](?:[a-z]+\d+)?-?((?:cloud-|rt-)?amd64)$", kernel)
        if not found:
            return exact, [], []
        flavour = found.group(1)
    return exact, [f"linux-headers-{flavour}"], [f"linux-image-{flavour}", f"linux-headers-{flavour}"]


def fabric_packages(manager: str, branch: int) -> list[str]:
    """Return the package of the fabric manager, without which GPUs behind NVSwitches do not start [3]."""
    return [f"nvidia-fabricmanager-{branch}" if manager == "apt" and branch < 590 else "nvidia-fabricmanager"]


def driver_packages(folder: str, branch: int, flavour: str) -> list[str]:
    """Return the packages of a driver that computes and needs no display: the compute-only installation [1]."""
    is_open = flavour == "open"
    if folder == "rhel9":
        module = "kmod-nvidia-open-dkms" if is_open else "kmod-nvidia-latest-dkms"
        return ["nvidia-driver-cuda", "nvidia-persistenced", "nvidia-modprobe", module]
    if folder.startswith("debian"):
        module = "nvidia-kernel-open-dkms" if is_open else "nvidia-kernel-dkms"
        return ["nvidia-driver-cuda", "nvidia-persistenced", "nvidia-modprobe", module]
    if branch < 590:  # Ubuntu's packages bore the branch in their names until then [1]
        module = f"nvidia-dkms-{branch}" + ("-open" if is_open else "")
        return [
            f"libnvidia-compute-{branch}",
            f"nvidia-utils-{branch}",
            f"nvidia-compute-utils-{branch}",
            "nvidia-modprobe",
            module,
        ]
    return [
        "libnvidia-compute",
        "nvidia-persistenced",
        "nvidia-modprobe",
        "nvidia-dkms" + ("-open" if is_open else ""),
    ]


@dataclass(frozen=True)
class Host:
    """What the decisions depend on."""

    name: str  # ID of os-release
    version: str  # VERSION_ID
    machine: str  # uname -m
    kernel: str  # uname -r
    devices: list[str] = field(default_factory=list)  # PCI device ids of the NVIDIA GPUs
    newest: str = ""  # the newest installed kernel, which the next boot takes; "" where it is the running one
    switches: int = 0  # NVSwitches on the PCI bus
    secure_boot: bool = False
    works: bool = False  # the driver that is there; then just a toolkit may be missing


def plan(host: Host, wanted_branch: str = "", toolkit: str = "") -> dict[str, Any]:
    """Return what is to be installed, or raise NoDriverError.

    `wanted_branch` is "" for the one of the system, `toolkit` a CUDA version such as "13.0" or "" for none.
    """
    system = find_system(host.name, host.version, host.machine)
    if toolkit and not re.fullmatch(r"\d+\.\d+", toolkit):
        raise NoDriverError(
            f"nvidia_cuda_toolkit is '{toolkit}', which is no version of CUDA: write one such as '13.0'"
        )
    chosen = {
        "manager": system.manager,
        "folder": system.folder,
        "key": system.key,
        "fingerprint": system.fingerprint,
        "toolkit": "cuda-toolkit-" + toolkit.replace(".", "-") if toolkit else "",
    }
    if host.works:
        return chosen
    flavour = choose_flavour(host.devices)
    branch = choose_branch(wanted_branch, host.devices, system)
    if host.secure_boot:
        raise NoDriverError(
            "Secure Boot is on, and the kernel would refuse NVIDIA's modules, which are built on the host and not "
            "signed: switch Secure Boot off (on Oracle Cloud: launch without it), or use an image with a signed "
            "driver"
        )
    exact, follow, newest = header_packages(host.name, host.kernel)
    if host.newest not in ("", host.kernel):
        exact += header_packages(host.name, host.newest)[0]
    return chosen | {
        "before": list(system.before),
        "repositories": list(system.repositories),
        "branch": branch,
        "flavour": flavour,
        # What keeps the branch: a package of preferences for apt, a module's stream for dnf [1].
        "pin": f"nvidia-driver-pinning-{branch}" if system.manager == "apt" else "",
        "stream": f"{branch}-open" if flavour == "open" else f"{branch}-dkms",
        "headers": exact,
        "follow": follow,
        "newest_kernel": newest,
        "packages": driver_packages(system.folder, branch, flavour)
        + (fabric_packages(system.manager, branch) if host.switches else []),
        "initramfs": list(system.initramfs),
        "uek": host.name == "ol",  # or may have it one day; RHCK is built as before then
    }
