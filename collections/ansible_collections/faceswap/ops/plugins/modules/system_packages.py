#!/usr/bin/python
# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Ansible module: packages of the distribution, on a host that may still be booting."""

from __future__ import annotations

DOCUMENTATION = r"""
module: system_packages
short_description: Install packages of the distribution on a host that may have just booted
version_added: 0.2.0
description:
  - Installs packages with C(apt-get) or C(dnf), whichever the host has, where one of them is missing.
  - Before that it waits for cloud-init, which may be installing packages itself, and for whoever holds the package
    manager's lock. An installation that was killed is brought to its end first.
  - M(ansible.builtin.package) does neither, needs the package manager's own Python bindings, and tells a host
    without a way to its package sources in several forms. This module tells it in one sentence.
author:
  - The faceswap-oci maintainers
options:
  names:
    description: Names of the packages.
    type: list
    elements: str
    required: true
  enable_repositories:
    description: Repositories of C(dnf) that count for this although they are switched off; C(apt-get) has no such.
    type: list
    elements: str
    default: []
  wait_s:
    description: For how many seconds to wait for cloud-init, and then for the package manager's lock.
    type: int
    default: 600
attributes:
  check_mode:
    description: Says what would be installed.
    support: full
  diff_mode:
    description: Shows what is installed.
    support: full
  idempotent:
    description: Packages that are there are left as they are, and nothing is asked of the network.
    support: full
"""

EXAMPLES = r"""
- name: Install what the engine needs of the distribution
  faceswap.ops.system_packages:
    names: [python3-venv]
  become: true
"""

RETURN = r"""
installed:
  description: The packages that were missing.
  returned: success
  type: list
  elements: str
  sample: [python3-venv]
"""

import os
import shutil
import time
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule

POLL_S = 3
ENVIRONMENT = {
    "LC_ALL": "C",
    "DEBIAN_FRONTEND": "noninteractive",
    "NEEDRESTART_MODE": "l",  # Ubuntu would restart services otherwise, sshd's sessions among them
}
# A source that does not answer is given up in a minute, not in ten.
APT = ["apt-get", "-y", "-q", "-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=20"]
LOCKED = ("Could not get lock", "Unable to lock", "frontend lock was locked", "is locked by another")
DNF_LOCKED = 200  # dnf's exit code where it is told not to wait


def reason(output: str) -> str:
    """Return the package manager's own first reason: what could not be fetched before what then was not found."""
    lines = [line.strip() for line in output.splitlines()]
    for label in ("E: Failed to fetch ", "W: Failed to fetch ", "Error: ", "E: "):
        for line in lines:
            if line.startswith(label):
                return line.removeprefix("E: ").removeprefix("W: ").removeprefix("Error: ").rstrip(".: ")
    return next((line for line in reversed(lines) if line), "it gave no reason")


class SystemPackages:
    """What is missing, and how it comes."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.names: list[str] = module.params["names"]
        self.wait_s: int = module.params["wait_s"]
        self.apt = shutil.which("apt-get") is not None
        if not self.apt and shutil.which("dnf") is None:
            self.fail("This host has neither apt-get nor dnf")

    def fail(self, cause: str) -> NoReturn:
        """End with a sentence."""
        self.module.fail_json(
            msg=f"The system's packages {', '.join(self.names)} could not be installed ({cause}): "
            "see that this host reaches its package sources (network, DNS, proxy), then run the same again."
        )
        raise AssertionError  # fail_json ends the process

    def run(self, words: list[str]) -> tuple[int, str]:
        """Return a command's exit code and all that it said."""
        code, out, err = self.module.run_command(words, environ_update=ENVIRONMENT)
        return code, err + out

    def missing(self) -> list[str]:
        """Return the packages that are not there whole."""
        if self.apt:
            _, said = self.run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *self.names])
            there = {line.split()[0] for line in said.splitlines() if line.endswith(" installed")}
            return [name for name in self.names if name not in there]
        return [name for name in self.names if self.run(["rpm", "-q", name])[0] != 0]

    def wait_for_cloud_init(self) -> None:
        """Wait until the first boot is over, however it went."""
        if shutil.which("cloud-init") is None:
            return
        code, _ = self.run(["timeout", str(self.wait_s), "cloud-init", "status", "--wait"])
        if code == 124:
            self.module.fail_json(
                msg=f"cloud-init is still at work on this host after {self.wait_s} s: "
                "`cloud-init status --long` there says at what; run the same again when it is done."
            )

    def patiently(self, words: list[str]) -> str | None:
        """Run a command of the package manager when its lock is free; return why it failed."""
        deadline = time.monotonic() + self.wait_s
        mended = False
        while True:
            code, said = self.run(words)
            if code == 0:
                return None
            if code == DNF_LOCKED or any(word in said for word in LOCKED):
                if time.monotonic() > deadline:
                    self.module.fail_json(
                        msg=f"Another program has been installing packages on this host for {self.wait_s} s "
                        f"({reason(said)}): run the same again when it is done."
                    )
                time.sleep(POLL_S)
            elif "dpkg was interrupted" in said and not mended:
                mended = True
                self.run(["dpkg", "--configure", "-a"])
            else:
                return reason(said)

    def install(self) -> None:
        """Install all that is missing, or fail."""
        if self.apt:
            # It may fail for a source that is not needed here; what it could not fetch is the better reason, though.
            unfetched = self.patiently([*APT, "-o", "APT::Update::Error-Mode=any", "update"])
            failed = self.patiently([*APT, "--no-install-recommends", "install", *self.names])
            cause = failed and (unfetched or failed)
        else:
            options = ["--setopt=exit_on_lock=True", "--setopt=install_weak_deps=False"]
            options += [f"--enablerepo={name}" for name in self.module.params["enable_repositories"]]
            cause = self.patiently(["dnf", "-y", "-q", *options, "install", *self.names])
        if cause:
            self.fail(cause)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "required": True},
            "enable_repositories": {"type": "list", "elements": "str", "default": []},
            "wait_s": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    packages = SystemPackages(module)
    missing = packages.missing()
    if missing and not module.check_mode:
        if os.geteuid() != 0:
            packages.module.fail_json(
                msg=f"Only root can install {', '.join(missing)}: let the task become root, or install them by hand."
            )
        packages.wait_for_cloud_init()
        packages.install()
    result: dict[str, Any] = {"changed": bool(missing), "installed": missing}
    module.exit_json(diff={"prepared": "".join(f"+ {name}\n" for name in missing)}, **result)


if __name__ == "__main__":
    main()
