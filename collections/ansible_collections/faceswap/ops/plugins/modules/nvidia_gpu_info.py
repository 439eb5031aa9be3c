#!/usr/bin/python
# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Ansible module: which NVIDIA GPUs are there, and does their driver work?"""

from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_gpu_info
short_description: Find a host's NVIDIA GPUs and tell whether their driver works
version_added: 0.1.0
description:
  - Finds GPUs by vendor and class on the PCI bus, so that a card is seen before any driver is installed.
  - Asks C(nvidia-smi) whether the driver works. Changes nothing.
author:
  - The faceswap-oci maintainers
options: {}
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
    driver:
      description: Kernel driver bound to it, empty without one.
      type: str
      sample: nvidia
driver_version:
  description: Version of the driver if C(nvidia-smi) works, otherwise empty.
  returned: always
  type: str
  sample: "580.95.05"
verdict:
  description: One sentence for people.
  returned: always
  type: str
  sample: "no NVIDIA GPU: CPU build"
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

NVIDIA_VENDOR = "0x10de"
DISPLAY_CLASSES = (
    "0x0300",
    "0x0302",
)  # VGA controller, 3D controller (PCI code and ID assignment specification)


def find_gpus(bus: Path) -> list[dict[str, str]]:
    """Return the NVIDIA display devices below a `/sys/bus/pci/devices`, in the order of their addresses."""
    gpus = []
    for device in sorted(bus.iterdir()) if bus.is_dir() else []:
        vendor, kind, number = ((device / name).read_text().strip() for name in ("vendor", "class", "device"))
        if vendor == NVIDIA_VENDOR and kind.startswith(DISPLAY_CLASSES):
            driver = device / "driver"
            gpus.append(
                {
                    "address": device.name,
                    "device": number.removeprefix("0x"),
                    "driver": driver.resolve().name if driver.exists() else "",
                }
            )
    return gpus


def verdict(gpus: list[dict[str, str]], driver_version: str) -> str:
    """Return what the findings mean for the build, in one sentence."""
    if not gpus:
        return "no NVIDIA GPU: CPU build"
    cards = ", ".join(f"10de:{gpu['device']} at {gpu['address']}" for gpu in gpus)
    if driver_version:
        return f"NVIDIA GPU {cards}, driver {driver_version} works"
    return f"NVIDIA GPU {cards} without a working driver: CPU build"


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    gpus = find_gpus(Path("/sys/bus/pci/devices"))
    driver_version = ""
    smi = module.get_bin_path("nvidia-smi")
    if gpus and smi:
        code, out, _ = module.run_command([smi, "--query-gpu=driver_version", "--format=csv,noheader"])
        if code == 0 and out.strip():
            driver_version = out.split()[0]
    module.exit_json(changed=False, gpus=gpus, driver_version=driver_version, verdict=verdict(gpus, driver_version))


if __name__ == "__main__":
    main()
