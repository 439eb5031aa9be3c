from pathlib import Path

from ansible_collections.faceswap.ops.plugins.modules.nvidia_gpu_info import find_gpus, verdict


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
    assert find_gpus(bus) == [
        {"address": "0000:00:04.0", "device": "15f8", "driver": ""},
        {"address": "0000:00:05.0", "device": "2236", "driver": "nvidia"},
    ]


def test_a_host_without_a_pci_bus_has_none(tmp_path: Path) -> None:
    assert find_gpus(tmp_path / "no bus") == []


def test_the_verdict_is_honest() -> None:
    gpu = [{"address": "0000:00:05.0", "device": "2236", "driver": ""}]
    assert verdict([], "") == "no NVIDIA GPU: CPU build"
    assert verdict(gpu, "").endswith("without a working driver: CPU build")
    assert verdict(gpu, "580.95.05") == "NVIDIA GPU 10de:2236 at 0000:00:05.0, driver 580.95.05 works"
