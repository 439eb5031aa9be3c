#!/usr/bin/python
# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Ansible module: NVIDIA's kernel modules, built for every installed kernel, loaded in the running one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_modules
short_description: Build NVIDIA's kernel modules for all kernels and load them
version_added: 0.2.0
description:
  - Asks DKMS whether NVIDIA's modules are installed for each kernel whose headers are there, and has them built where
    they are not. So the next boot finds them, whichever kernel it takes.
  - Unloads nouveau and loads NVIDIA's modules into the running kernel.
  - Reboots nothing. Where only a reboot helps, it says so in RV(reboot).
author:
  - The faceswap-oci maintainers
options:
  root:
    description: Where C(/sys), C(/proc) and C(/lib/modules) are found; another folder than C(/) is for tests.
    type: path
    default: /
attributes:
  check_mode:
    description: Says whether something would be built or loaded.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
  idempotent:
    description: What is built and loaded is left alone.
    support: full
"""

EXAMPLES = r"""
- name: Build and load NVIDIA's modules
  faceswap.ops.nvidia_modules:
  register: modules
"""

RETURN = r"""
kernels:
  description: The kernels for which the modules are installed.
  returned: success
  type: list
  elements: str
  sample: [6.1.0-25-amd64]
built:
  description: Those of them for which they were not before.
  returned: success
  type: list
  elements: str
  sample: []
reboot:
  description: Why the modules cannot be loaded without a reboot; empty where they are loaded.
  returned: success
  type: str
  sample: nouveau is in use and cannot be unloaded
"""

import re
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.faceswap.ops.plugins.module_utils.nvidia_decisions import newest_kernel, version_key


def installed_kernels(modules: Path) -> dict[str, bool]:
    """Return the kernels below a `/lib/modules`, oldest first, and whether their headers are there."""
    folders = [path for path in modules.iterdir() if (path / "kernel").is_dir()] if modules.is_dir() else []
    return {path.name: (path / "build").is_dir() for path in sorted(folders, key=lambda path: version_key(path.name))}


def is_installed(status: str) -> bool:
    """Return whether the output of `dkms status -k` for one kernel has NVIDIA's modules as installed.

    DKMS writes "nvidia/580.95.05, 6.1.0-25-amd64, x86_64: installed", before version 3 with a comma for the slash.
    """
    return any(re.match(r"nvidia[a-z-]*[/,].*: *installed", line.strip()) for line in status.splitlines())


def last_line(text: str) -> str:
    """Return the last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else "it said nothing"


class Modules:
    """Looks at the modules, and brings them to where they shall be."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.root = Path(module.params["root"])
        self.running = (self.root / "proc/sys/kernel/osrelease").read_text().strip()
        self.kernels = installed_kernels(self.root / "lib/modules")

    def run(self, *words: str) -> tuple[int, str]:
        """Return the exit code and all output of a command."""
        code, out, err = self.module.run_command(list(words))
        return code, out + "\n" + err

    def loaded(self, name: str) -> bool:
        """Return whether the kernel has a module in it."""
        return (self.root / "sys/module" / name).exists()

    def check_headers(self) -> None:
        """Fail where the next boot would take a kernel for which nothing can be built."""
        newest = newest_kernel(list(self.kernels), self.running) or self.running
        for kernel, when in ((newest, "the next boot takes"), (self.running, "runs now")):
            if not self.kernels.get(kernel):
                self.module.fail_json(
                    msg=f"The headers of the kernel {kernel}, which {when}, are not there, so no driver can be built "
                    "for it: install its headers, or remove that kernel if it is not needed."
                )

    def build(self) -> list[str]:
        """Have the modules built for each kernel that lacks them; return these kernels."""
        built = []
        for kernel in [kernel for kernel, headers in self.kernels.items() if headers]:
            if is_installed(self.run("dkms", "status", "-k", kernel)[1]):
                continue
            built.append(kernel)
            if self.module.check_mode:
                continue
            code, said = self.run("dkms", "autoinstall", "-k", kernel)
            if code or not is_installed(self.run("dkms", "status", "-k", kernel)[1]):
                self.module.fail_json(
                    msg=f"DKMS did not build NVIDIA's modules for the kernel {kernel} ({last_line(said)}): see "
                    "/var/lib/dkms/nvidia*/*/build/make.log on the host.",
                    stdout=said,
                )
        return built

    def load(self) -> tuple[bool, str]:
        """Load the modules; return whether that changed anything, and why only a reboot helps, if so."""
        wanted = [name for name in ("nvidia", "nvidia_uvm") if not self.loaded(name)]
        if self.module.check_mode:
            return self.loaded("nouveau") or bool(wanted), ""
        changed = False
        if self.loaded("nouveau"):
            _, said = self.run("modprobe", "-r", "nouveau")
            if self.loaded("nouveau"):
                return changed, f"nouveau is in use and cannot be unloaded ({last_line(said)})"
            changed = True
        for name in wanted:
            code, said = self.run("modprobe", name)
            if code:
                return changed, f"the module {name} cannot be loaded ({last_line(said)})"
            changed = True
        found, there = self.root / "sys/module/nvidia/version", self.run("modinfo", "-F", "version", "nvidia")
        version = found.read_text().strip() if found.exists() else ""
        if version and there[0] == 0 and version != there[1].strip():
            return changed, f"version {version} of the module nvidia is loaded, and {there[1].strip()} is installed"
        return changed, ""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={"root": {"type": "path", "default": "/"}}, supports_check_mode=True)
    modules = Modules(module)
    modules.check_headers()
    built = modules.build()
    changed, reboot = modules.load()
    module.exit_json(
        changed=changed or bool(built),
        kernels=[kernel for kernel, headers in modules.kernels.items() if headers],
        built=built,
        reboot=reboot,
    )


if __name__ == "__main__":
    main()
