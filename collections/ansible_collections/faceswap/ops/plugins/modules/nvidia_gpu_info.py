#!/usr/bin/python
# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Ansible module: which NVIDIA GPUs are there, does their driver work, and if not, which one do they get?"""

from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_gpu_info
short_description: Find a host's NVIDIA GPUs, tell whether their driver works, and choose one if not
version_added: 0.1.0
description:
  - Finds GPUs by vendor and class on the PCI bus, so that a card is seen before any driver is installed.
  - Asks C(nvidia-smi) whether the driver works. Where it does not, tells what is to be installed,
    or why nothing can be.
  - Looks at all that in one round trip, needs no root and changes nothing.
author:
  - The faceswap-oci maintainers
options:
  root:
    description: Where C(/sys), C(/proc) and C(/lib/modules) are found; another folder than C(/) is for tests.
    type: path
    default: /
  branch:
    description: Branch of the driver, such as V(580); empty for the one that fits the operating system.
    type: str
    default: ""
  toolkit:
    description: Version of the CUDA toolkit that is wanted, such as V(13.0); empty for none.
    type: str
    default: ""
  repository:
    description: Root of NVIDIA's package repositories, for RV(source); empty for not to look.
    type: str
    default: ""
attributes:
  check_mode:
    description: Changes nothing in any mode.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
  idempotent:
    description: Changes nothing.
    support: full
"""

EXAMPLES = r"""
- name: Look for NVIDIA GPUs
  faceswap.ops.nvidia_gpu_info:
  register: gpu
"""

RETURN = r"""
gpus:
  description: The NVIDIA GPUs on the PCI bus.
  returned: always
  type: list
  elements: dict
  contains:
    address:
      description: PCI address.
      type: str
      sample: "0000:00:04.0"
    device:
      description: PCI device id.
      type: str
      sample: "2236"
    architecture:
      description: NVIDIA's name of the generation, empty for one before Maxwell.
      type: str
      sample: Ampere
    driver:
      description: Kernel driver bound to it, empty without one.
      type: str
      sample: nvidia
driver_version:
  description: Version of the driver if C(nvidia-smi) works, otherwise empty.
  returned: always
  type: str
  sample: "580.95.05"
persistence:
  description: Whether the driver keeps all GPUs ready while no program uses them.
  returned: always
  type: bool
persistenced:
  description: Whether the unit C(nvidia-persistenced) is there.
  returned: always
  type: bool
nouveau:
  description: Whether nouveau is loaded, which keeps NVIDIA's driver from the cards.
  returned: always
  type: bool
secure_boot:
  description: Whether Secure Boot is on.
  returned: always
  type: bool
in_use:
  description: Whether programs compute on the GPUs.
  returned: always
  type: bool
switches:
  description: How many NVSwitches are on the PCI bus.
  returned: always
  type: int
fabricmanager:
  description: Whether the unit C(nvidia-fabricmanager) is there.
  returned: always
  type: bool
kernel:
  description: The running kernel's release; empty where there is no GPU.
  returned: always
  type: str
  sample: 6.1.0-25-amd64
newest_kernel:
  description: The newest installed kernel of the running one's kind; empty where there is no GPU.
  returned: always
  type: str
  sample: 6.1.0-25-amd64
source:
  description: File of apt, not the role's own, that names NVIDIA's repository for this host; empty without one.
  returned: always
  type: str
  sample: /etc/apt/sources.list.d/cuda-debian12-x86_64.list
toolkit:
  description: Whether the wanted toolkit is there; true where none is wanted.
  returned: always
  type: bool
published:
  description: What the local fact of the role nvidia_cuda says, empty without one.
  returned: always
  type: dict
plan:
  description: What is to be installed; empty where there is no GPU, or nothing can be.
  returned: always
  type: dict
refusal:
  description: Why no driver can be installed, with the remedy; empty where one can.
  returned: always
  type: str
verdict:
  description: What was found, in one sentence for people, without its end.
  returned: always
  type: str
  sample: "no NVIDIA GPU: CPU build"
"""

import json
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.faceswap.ops.plugins.module_utils import nvidia_decisions as decisions

NVIDIA_VENDOR = "0x10de"
DISPLAY_CLASSES = (
    "0x0300",
    "0x0302",
)  # VGA controller, 3D controller (PCI code and ID assignment specification)
SWITCH_CLASS = "0x0680"  # other bridge: NVIDIA's NVSwitch
EFI_GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"  # vendor of the variable SecureBoot (UEFI specification)
UNIT_FOLDERS = ("etc", "usr/lib", "lib")
LENT = ("vfio-pci", "pci-stub")  # drivers of a card that is kept for a virtual machine
SMI_S = 60  # a driver whose persistence is off starts each card first, which takes some seconds
APT = Path("/etc/apt")
OWN_SOURCE = "nvidia-cuda.sources"
FACT = Path("/etc/ansible/facts.d/nvidia_cuda.fact")


def read(path: Path) -> str:
    """Return what a file of the kernel says."""
    return path.read_text().strip()


def nvidia_devices(bus: Path, kinds: tuple[str, ...]) -> list[Path]:
    """Return NVIDIA's devices of these classes, in the order of their addresses."""
    devices = sorted(bus.iterdir()) if bus.is_dir() else []
    return [d for d in devices if read(d / "vendor") == NVIDIA_VENDOR and read(d / "class").startswith(kinds)]


def find_gpus(bus: Path) -> list[dict[str, str]]:
    """Return the NVIDIA display devices below a `/sys/bus/pci/devices`, in the order of their addresses."""
    gpus = []
    for device in nvidia_devices(bus, DISPLAY_CLASSES):
        driver, number = device / "driver", read(device / "device").removeprefix("0x")
        if driver.exists() and driver.resolve().name in LENT:
            continue
        gpus.append(
            {
                "address": device.name,
                "device": number,
                "architecture": decisions.architecture(number),
                "driver": driver.resolve().name if driver.exists() else "",
            }
        )
    return gpus


def newest_kernel(modules: Path, running: str) -> str:
    """Return the newest kernel of the running one's kind below a `/lib/modules`, or "" where there is none."""
    found = [path.name for path in modules.iterdir() if (path / "kernel").is_dir()] if modules.is_dir() else []
    return decisions.newest_kernel(found, running)


def in_use(modules: Path) -> bool:
    """Return whether programs compute, by a `/sys/module`: each keeps nvidia_uvm, which nothing else does.

    (nvidia itself is also kept by the modules above it and by nvidia-persistenced.)
    """
    try:
        return int(read(modules / "nvidia_uvm/refcnt")) > 0
    except (OSError, ValueError):
        return False


def other_source(apt: Path, url: str) -> str:
    """Return the file below an `/etc/apt`, other than the role's own, that names a repository; "" without one.

    apt reads nothing at all any more where two entries name one repository with two keys.
    """
    for path in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]:
        if path.suffix not in (".list", ".sources") or path.name == OWN_SOURCE or not path.is_file():
            continue
        text = re.sub(r"(?m)#.*$\n?", "", path.read_text(errors="replace"))
        for entry in re.split(r"\n\s*\n", text):
            on = not re.search(r"(?mi)^Enabled:\s*(no|false|0|off)\b", entry)
            if on and url in [word.rstrip("/") for word in entry.split()]:
                return str(path)
    return ""


def ask_smi(smi: str, timeout_s: float = SMI_S) -> str | None:
    """Return what nvidia-smi says of the cards, "" where it fails, None where it hangs.

    One that hangs in the kernel cannot be killed, so it is not waited for either.
    """
    words = [smi, "--query-gpu=driver_version,persistence_mode", "--format=csv,noheader"]
    nothing = subprocess.DEVNULL
    process = subprocess.Popen(words, stdin=nothing, stdout=subprocess.PIPE, stderr=nothing, text=True)
    try:
        out, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return None
    return out if process.returncode == 0 else ""


def secure_boot(sys: Path) -> bool:
    """Return whether Secure Boot is on; without UEFI it is off."""
    try:
        # Four bytes of attributes, then the variable's one byte (Linux, Documentation/filesystems/efivarfs.rst).
        return (sys / "firmware/efi/efivars" / f"SecureBoot-{EFI_GLOBAL}").read_bytes()[-1:] == b"\1"
    except OSError:
        return False


def os_release(text: str) -> dict[str, str]:
    """Return the assignments of an os-release file."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, or an empty one where there is none."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_smi(output: str) -> tuple[str, bool]:
    """Return the driver's version, and whether all GPUs are kept ready, from `nvidia-smi --query-gpu`."""
    rows = [[cell.strip() for cell in line.split(",")] for line in output.splitlines() if line.strip()]
    if not rows or not rows[0][0][:1].isdigit():
        return "", False
    return rows[0][0], all(row[1:2] == ["Enabled"] for row in rows)


def verdict(gpus: list[dict[str, str]], driver_version: str) -> str:
    """Return what was found, in one sentence without its end."""
    if not gpus:
        return "no NVIDIA GPU: CPU build"
    cards = ", ".join(f"10de:{gpu['device']} at {gpu['address']}" for gpu in gpus)
    if driver_version:
        return f"NVIDIA GPU {cards}, driver {driver_version} works"
    return f"NVIDIA GPU {cards} without a working driver"


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": "/"},
            "branch": {"type": "str", "default": ""},
            "toolkit": {"type": "str", "default": ""},
            "repository": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    root = Path(module.params["root"])
    bus = root / "sys/bus/pci/devices"
    gpus = find_gpus(bus)
    switches = len(nvidia_devices(bus, (SWITCH_CLASS,)))
    said: str | None = ""
    smi = module.get_bin_path("nvidia-smi")
    if gpus and smi:
        said = ask_smi(smi)
    driver_version, persistence = read_smi(said or "")
    plan: dict[str, Any] = {}
    kernel = newest = refusal = source = ""
    boot = secure_boot(root / "sys")
    if said is None:
        refusal = f"nvidia-smi gave no answer within {SMI_S} s: look at the kernel's messages and reboot the host"
    elif gpus:  # without one nothing more is asked of the host, which may be no Linux then
        kernel = read(root / "proc/sys/kernel/osrelease")
        newest = newest_kernel(root / "lib/modules", kernel)
        system = os_release(Path("/etc/os-release").read_text())
        host = decisions.Host(
            name=system.get("ID", ""),
            version=system.get("VERSION_ID", ""),
            machine=platform.machine(),
            kernel=kernel,
            newest=newest,
            devices=[gpu["device"] for gpu in gpus],
            switches=switches,
            secure_boot=boot,
            works=bool(driver_version),
        )
        try:
            plan = decisions.plan(host, module.params["branch"], module.params["toolkit"])
        except decisions.NoDriverError as refused:
            refusal = str(refused)
        if plan and module.params["repository"]:
            source = other_source(APT, f"{module.params['repository'].rstrip('/')}/{plan['folder']}/x86_64")
    toolkit = module.params["toolkit"]

    def has_unit(name: str) -> bool:
        return any(Path("/", folder, "systemd/system", name).exists() for folder in UNIT_FOLDERS)

    module.exit_json(
        changed=False,
        gpus=gpus,
        driver_version=driver_version,
        persistence=persistence,
        persistenced=has_unit("nvidia-persistenced.service"),
        in_use=in_use(root / "sys/module"),
        switches=switches,
        fabricmanager=has_unit("nvidia-fabricmanager.service"),
        nouveau=(root / "sys/module/nouveau").exists(),
        secure_boot=boot,
        kernel=kernel,
        newest_kernel=newest,
        source=source,
        toolkit=not toolkit or Path(f"/usr/local/cuda-{toolkit}/bin/nvcc").exists(),
        published=read_json(FACT),
        plan=plan,
        refusal=refusal,
        verdict=verdict(gpus, driver_version),
    )


if __name__ == "__main__":
    main()
