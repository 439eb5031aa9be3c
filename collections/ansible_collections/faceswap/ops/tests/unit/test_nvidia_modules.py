"""NVIDIA's kernel modules, with a dummy kernel and a dummy DKMS of shell scripts."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.faceswap.ops.plugins.modules import nvidia_modules
from ansible_collections.faceswap.ops.plugins.modules.nvidia_modules import installed_kernels, is_installed

RUNNING, NEWEST = "6.1.0-9-amd64", "6.1.0-10-amd64"
SCRIPTS = {
    "dkms": """
while [ $# -gt 0 ]; do case "$1" in -k) kernel=$2; shift;; *) verb=$1;; esac; shift; done
[ "$verb" = autoinstall ] && echo "built for $kernel" && ! [ -e "$ROOT/broken" ] && touch "$ROOT/dkms.$kernel"
[ "$verb" = status ] && [ -e "$ROOT/dkms.$kernel" ] && echo "nvidia/580.95.05, $kernel, x86_64: installed"
true
""",
    "modprobe": """
if [ "$1" = -r ]; then [ -e "$ROOT/busy" ] && { echo "modprobe: FATAL: Module $2 is in use." >&2; exit 1; }
    rm -rf "$ROOT/sys/module/$2"
else [ -e "$ROOT/unloadable" ] && { echo "could not insert '$1': No such device" >&2; exit 1; }
    mkdir -p "$ROOT/sys/module/$1"; echo 580.95.05 >"$ROOT/sys/module/$1/version"
fi
""",
    "modinfo": "cat $ROOT/modinfo 2>/dev/null || echo 580.95.05",
}


class Host:
    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "proc/sys/kernel").mkdir(parents=True)
        (root / "proc/sys/kernel/osrelease").write_text(RUNNING + "\n")
        (root / "sys/module").mkdir(parents=True)
        self.kernel(RUNNING)
        (root / "bin").mkdir()
        for name, script in SCRIPTS.items():
            path = root / "bin" / name
            path.write_text("#!/bin/sh\n" + script)
            path.chmod(0o755)

    def kernel(self, release: str, headers: bool = True) -> None:
        (self.root / "lib/modules" / release / "kernel").mkdir(parents=True, exist_ok=True)
        if headers:
            (self.root / "lib/modules" / release / "build").mkdir(exist_ok=True)

    def play(self, check: bool = False) -> dict[str, Any]:
        arguments = {"ANSIBLE_MODULE_ARGS": {"root": str(self.root), "_ansible_check_mode": check}}
        environment = {
            **os.environ,
            "PATH": f"{self.root}/bin:{os.environ['PATH']}",
            "ROOT": str(self.root),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        done = subprocess.run(
            [sys.executable, nvidia_modules.__file__, json.dumps(arguments)],
            capture_output=True,
            text=True,
            env=environment,
        )
        result: dict[str, Any] = json.loads(done.stdout or done.stderr)
        return result

    def has(self, path: str) -> bool:
        return (self.root / path).exists()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_the_modules_are_built_for_each_kernel_and_loaded(host: Host) -> None:
    host.kernel(NEWEST)
    host.kernel("6.1.0-8-amd64", headers=False)  # an old one that nobody will boot
    (host.root / "sys/module/nouveau").mkdir()
    done = host.play()
    assert done["changed"] and done["reboot"] == ""
    assert done["built"] == done["kernels"] == [RUNNING, NEWEST]
    assert host.has(f"dkms.{RUNNING}") and host.has(f"dkms.{NEWEST}")
    assert host.has("sys/module/nvidia") and host.has("sys/module/nvidia_uvm")
    assert not host.has("sys/module/nouveau")
    again = host.play()
    assert not again["changed"] and again["built"] == [] and again["kernels"] == [RUNNING, NEWEST]


def test_check_mode_builds_and_loads_nothing(host: Host) -> None:
    assert host.play(check=True)["changed"]
    assert not host.has(f"dkms.{RUNNING}") and not host.has("sys/module/nvidia")
    host.play()
    assert not host.play(check=True)["changed"]


def test_nouveau_in_use_needs_a_reboot(host: Host) -> None:
    (host.root / "sys/module/nouveau").mkdir()
    (host.root / "busy").touch()
    done = host.play()
    assert done["reboot"] == ("nouveau is in use and cannot be unloaded (modprobe: FATAL: Module nouveau is in use)")
    assert not host.has("sys/module/nvidia")


def test_a_module_that_is_not_loaded_needs_a_reboot(host: Host) -> None:
    (host.root / "unloadable").touch()
    assert host.play()["reboot"] == ("the module nvidia cannot be loaded (could not insert 'nvidia': No such device)")


def test_a_module_of_another_version_needs_a_reboot(host: Host) -> None:
    host.play()
    (host.root / "modinfo").write_text("580.178.04\n")
    assert host.play()["reboot"] == "version 580.95.05 of the module nvidia is loaded, and 580.178.04 is installed"


def test_a_build_that_fails_is_told(host: Host) -> None:
    (host.root / "broken").touch()
    done = host.play()
    assert done["failed"] and f"DKMS did not build NVIDIA's modules for the kernel {RUNNING}" in done["msg"]


@pytest.mark.parametrize(("kernel", "when"), [(NEWEST, "which the next boot takes"), (RUNNING, "which runs now")])
def test_a_kernel_without_headers_is_told(host: Host, kernel: str, when: str) -> None:
    if kernel == NEWEST:
        host.kernel(NEWEST, headers=False)
    else:
        (host.root / "lib/modules" / RUNNING / "build").rmdir()
        host.kernel(NEWEST)
    done = host.play()
    assert done["failed"] and f"The headers of the kernel {kernel}, {when}, are not there" in done["msg"]


def test_a_kernel_of_another_kind_is_not_the_next_one(host: Host) -> None:
    host.kernel("6.12.0-100.28.2.2.el9uek.x86_64", headers=False)
    assert host.play()["kernels"] == [RUNNING]


def test_what_dkms_says_is_understood() -> None:
    assert is_installed("nvidia/580.95.05, 6.1.0-25-amd64, x86_64: installed")
    assert is_installed("nvidia-open/580.95.05, 6.12.0-1.el9uek.x86_64, x86_64: installed (original module exists)")
    assert is_installed("nvidia, 580.95.05, 5.14.0-570.el9.x86_64, x86_64: installed")
    assert not is_installed("nvidia/580.95.05: added")
    assert not is_installed("nvidia/580.95.05, 6.1.0-25-amd64, x86_64: built")
    assert not is_installed("virtualbox/7.0, 6.1.0-25-amd64, x86_64: installed")
    assert not is_installed("")


def test_headers_are_a_folder_that_is_there(host: Host) -> None:
    (host.root / "lib/modules" / NEWEST / "kernel").mkdir(parents=True)
    (host.root / "lib/modules" / NEWEST / "build").symlink_to("/usr/src/linux-headers-that-are-gone")
    assert installed_kernels(host.root / "lib/modules") == {RUNNING: True, NEWEST: False}
