import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.faceswap.ops.plugins.modules import nvidia_gpu_info
from ansible_collections.faceswap.ops.plugins.modules.nvidia_gpu_info import (
    EFI_GLOBAL,
    SWITCH_CLASS,
    ask_smi,
    find_gpus,
    in_use,
    newest_kernel,
    nvidia_devices,
    os_release,
    other_source,
    read_json,
    read_smi,
    secure_boot,
    verdict,
)


def device(bus: Path, address: str, vendor: str, kind: str, number: str, driver: str = "") -> None:
    folder = bus / address
    folder.mkdir(parents=True)
    for name, content in (("vendor", vendor), ("class", kind), ("device", number)):
        (folder / name).write_text(content + "\n")
    if driver:
        (bus.parent / driver).mkdir(exist_ok=True)
        (folder / "driver").symlink_to(bus.parent / driver)


def test_gpus_are_found_by_vendor_and_class(tmp_path: Path) -> None:
    bus = tmp_path / "devices"
    device(bus, "0000:00:05.0", "0x10de", "0x030200", "0x2236", "nvidia")  # A10: a 3D controller
    device(bus, "0000:00:04.0", "0x10de", "0x030000", "0x15f8")  # P100, as a VGA controller, no driver
    device(bus, "0000:00:03.0", "0x10de", "0x040300", "0x10f0", "snd_hda_intel")  # a card's sound device
    device(bus, "0000:00:02.0", "0x8086", "0x030000", "0x3e98", "i915")
    device(bus, "0000:00:06.0", "0x10de", "0x068000", "0x22a3")  # an NVSwitch
    device(bus, "0000:00:07.0", "0x10de", "0x030200", "0x2236", "vfio-pci")  # lent to a virtual machine
    assert find_gpus(bus) == [
        {"address": "0000:00:04.0", "device": "15f8", "architecture": "Pascal", "driver": ""},
        {"address": "0000:00:05.0", "device": "2236", "architecture": "Ampere", "driver": "nvidia"},
    ]
    assert [found.name for found in nvidia_devices(bus, (SWITCH_CLASS,))] == ["0000:00:06.0"]


def test_a_host_without_a_pci_bus_has_none(tmp_path: Path) -> None:
    assert find_gpus(tmp_path / "no bus") == []


def test_the_verdict_is_honest() -> None:
    gpu = [{"address": "0000:00:05.0", "device": "2236", "driver": ""}]
    assert verdict([], "") == "no NVIDIA GPU: CPU build"
    assert verdict(gpu, "") == "NVIDIA GPU 10de:2236 at 0000:00:05.0 without a working driver"
    assert verdict(gpu, "580.95.05") == "NVIDIA GPU 10de:2236 at 0000:00:05.0, driver 580.95.05 works"


@pytest.mark.parametrize(("last", "on"), [(b"\1", True), (b"\0", False)])
def test_secure_boot_is_read_from_the_firmware(tmp_path: Path, last: bytes, on: bool) -> None:
    assert not secure_boot(tmp_path)  # no UEFI
    variables = tmp_path / "firmware/efi/efivars"
    variables.mkdir(parents=True)
    (variables / f"SecureBoot-{EFI_GLOBAL}").write_bytes(b"\6\0\0\0" + last)
    assert secure_boot(tmp_path) is on


def test_the_driver_is_asked_for_each_card() -> None:
    assert read_smi("580.95.05, Enabled\n580.95.05, Enabled\n") == ("580.95.05", True)
    assert read_smi("580.95.05, Enabled\n580.95.05, Disabled\n") == ("580.95.05", False)
    assert read_smi("No devices were found\n") == ("", False)
    assert read_smi("") == ("", False)


def test_the_newest_kernel_is_one_that_is_installed(tmp_path: Path) -> None:
    assert newest_kernel(tmp_path / "none", "6.1.0-9-amd64") == ""
    for kernel in ("6.1.0-9-amd64", "6.1.0-10-amd64"):
        (tmp_path / kernel / "kernel").mkdir(parents=True)
    (tmp_path / "6.1.0-11-amd64").mkdir()  # what a removed kernel left
    (tmp_path / "6.12.0-100.el9uek.x86_64" / "kernel").mkdir(parents=True)  # another kind
    assert newest_kernel(tmp_path, "6.1.0-9-amd64") == "6.1.0-10-amd64"


def test_programs_that_compute_are_seen(tmp_path: Path) -> None:
    assert not in_use(tmp_path)
    (tmp_path / "nvidia_uvm").mkdir()
    for count in ("0", "2"):
        (tmp_path / "nvidia_uvm/refcnt").write_text(count + "\n")
        assert in_use(tmp_path) is (count == "2")


URL = "https://mirror/cuda/repos/debian12/x86_64"


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("sources.list.d/cuda-debian12-x86_64.list", f"deb [signed-by=/usr/share/a.gpg] {URL}/ /\n", True),
        ("sources.list", f"deb {URL} /\n", True),
        ("sources.list.d/cuda.sources", f"Types: deb\nURIs: {URL}/\nSuites: /\n", True),
        ("sources.list.d/cuda.sources", f"Enabled: no\nTypes: deb\nURIs: {URL}/\nSuites: /\n", False),
        ("sources.list.d/cuda.list", f"# deb {URL}/ /\n", False),
        ("sources.list.d/cuda.list", "deb https://mirror/cuda/repos/debian13/x86_64/ /\n", False),
        ("sources.list.d/cuda.list.save", f"deb {URL}/ /\n", False),
        ("sources.list.d/nvidia-cuda.sources", f"Types: deb\nURIs: {URL}\nSuites: /\n", False),  # the role's own
    ],
)
def test_another_entry_for_the_repository_is_found(tmp_path: Path, name: str, text: str, found: bool) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / name).write_text(text)
    assert other_source(tmp_path, URL) == (str(tmp_path / name) if found else "")


def test_a_driver_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    smi = tmp_path / "nvidia-smi"
    for script, said in (("exec sleep 30", None), ("echo wrong; exit 9", ""), ("echo 1, Enabled", "1, Enabled\n")):
        smi.write_text(f"#!/bin/sh\n{script}\n")
        smi.chmod(0o755)
        began = time.monotonic()
        assert ask_smi(str(smi), 0.5 if said is None else 20) == said
        assert time.monotonic() - began < 20


def test_a_host_without_a_gpu_needs_no_linux(tmp_path: Path) -> None:
    """It has neither /sys nor /proc."""
    done = subprocess.run(
        [sys.executable, nvidia_gpu_info.__file__, json.dumps({"ANSIBLE_MODULE_ARGS": {"root": str(tmp_path)}})],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"},
    )
    told = json.loads(done.stdout)
    assert told["verdict"] == "no NVIDIA GPU: CPU build" and told["kernel"] == "" and not told["gpus"]


def test_files_are_read_as_they_are(tmp_path: Path) -> None:
    text = '# a comment\nNAME="Oracle Linux Server"\nID=ol\nVERSION_ID="9.6"\n\n'
    assert os_release(text) == {"NAME": "Oracle Linux Server", "ID": "ol", "VERSION_ID": "9.6"}
    fact = tmp_path / "fact"
    for content, read in ((None, {}), ("no JSON", {}), ("[1]", {}), ('{"a": "b"}', {"a": "b"})):
        if content is not None:
            fact.write_text(content)
        assert read_json(fact) == read
