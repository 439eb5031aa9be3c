from dataclasses import replace

import pytest
from ansible_collections.faceswap.ops.plugins.module_utils.nvidia_decisions import (
    Host,
    NoDriverError,
    architecture,
    choose_flavour,
    header_packages,
    newest_kernel,
    plan,
    version_key,
)

P100, V100, T4, A10, A100, H100, H200, L40S, B200, RTX5090 = (
    "15f8",
    "1db1",
    "1eb8",
    "2236",
    "20b0",
    "2330",
    "2335",
    "26b9",
    "2901",
    "2b85",
)
DEBIAN = Host("debian", "12", "x86_64", "6.1.0-25-cloud-amd64", [A10])
TRIXIE = Host("debian", "13", "x86_64", "6.12.48+deb13-amd64", [A10])
UBUNTU = Host("ubuntu", "24.04", "x86_64", "6.8.0-1016-oracle", [A10])
RHCK = Host("ol", "9.6", "x86_64", "5.14.0-570.12.1.el9_6.x86_64", [A10])
UEK = Host("ol", "9.6", "x86_64", "6.12.0-100.28.2.2.el9uek.x86_64", [A10])


@pytest.mark.parametrize(
    ("devices", "name"),
    [
        (["1023", "102d", "12ba", "0fb0"], ""),  # K40, K80, the last of Kepler, and a card's odd one
        (["1340", "13c2", "1401", "15ef", "17c2", "17fd"], "Maxwell"),
        (["15f0", "15f7", "15f8", "15f9", "1725", "1b06", "1b38", "1bb3", "1d56"], "Pascal"),
        (["1d81", "1db0", "1db1", "1db4", "1db5", "1db8", "1df5", "1df6"], "Volta"),
        (["1e02", "1e30", "1eb8", "1f82", "1ff9", "2182", "21d1"], "Turing"),
        (["2082", "20b0", "20b2", "20b5", "20f1", "2204", "2236", "2237", "2484", "25b6", "25fb"], "Ampere"),
        (["2302", "2321", "2330", "2331", "2335", "233b", "2342", "2348"], "Hopper"),
        (["2684", "26b1", "26b5", "26b9", "27b8", "28e1"], "Ada"),
        (["2901", "2941", "29bc", "2b85", "2bb1", "2c02", "2d04", "2e12", "2f04", "3182", "31c2"], "Blackwell"),
        (["3200", "ffff"], "newer than Blackwell"),
    ],
)
def test_the_architecture_follows_from_the_id(devices: list[str], name: str) -> None:
    assert {device: architecture(device) for device in devices} == dict.fromkeys(devices, name)


@pytest.mark.parametrize(
    ("devices", "flavour"),
    [
        ([P100], "proprietary"),
        ([V100, V100], "proprietary"),
        ([T4], "open"),
        ([A10, A100, L40S], "open"),
        ([H100, H200], "open"),
        ([B200, RTX5090, H100], "open"),
        ([P100, H100], "proprietary"),  # the proprietary modules know both
        (["ffff"], "open"),
    ],
)
def test_the_flavour_fits_all_cards(devices: list[str], flavour: str) -> None:
    assert choose_flavour(devices) == flavour


def test_cards_without_a_common_driver_are_refused() -> None:
    with pytest.raises(NoDriverError, match=r"10de:15f8 \(Pascal\) and 10de:2901 \(Blackwell\) have no driver in"):
        choose_flavour([P100, A10, B200])
    with pytest.raises(NoDriverError, match="10de:102d is older than Maxwell"):
        choose_flavour(["102d", A10])


@pytest.mark.parametrize("host", [DEBIAN, UBUNTU, RHCK, UEK])
@pytest.mark.parametrize("card", [P100, V100])
def test_pascal_and_volta_get_580_and_no_later_branch(host: Host, card: str) -> None:
    chosen = plan(replace(host, devices=[card]))
    assert (chosen["branch"], chosen["flavour"]) == (580, "proprietary")
    assert not any("open" in name for name in [*chosen["packages"], chosen["stream"]])
    with pytest.raises(NoDriverError, match=r"580 is the last for the card .* set it to 580"):
        plan(replace(host, devices=[card]), "595")
    assert plan(replace(host, devices=[card]), "570")["branch"] == 570


def test_debian_13_has_no_branch_for_pascal_and_volta() -> None:
    with pytest.raises(NoDriverError, match=r"begins with 590: use Debian 12, Ubuntu 24\.04 or Oracle Linux 9"):
        plan(replace(TRIXIE, devices=[P100]))
    with pytest.raises(NoDriverError, match="begins with branch 590, and nvidia_cuda_branch is 580: set it to 595"):
        plan(TRIXIE, "580")
    assert plan(TRIXIE)["branch"] == 595


def test_what_is_no_version_is_refused() -> None:
    with pytest.raises(NoDriverError, match="nvidia_cuda_branch is 'latest'"):
        plan(DEBIAN, "latest")
    with pytest.raises(NoDriverError, match="nvidia_cuda_toolkit is '13'"):
        plan(DEBIAN, toolkit="13")


def test_each_system_gets_its_packages() -> None:
    assert plan(DEBIAN) == {
        "manager": "apt",
        "folder": "debian12",
        "key": "3bf863cc.pub",
        "fingerprint": "EB693B3035CD5710E231E123A4B469963BF863CC",
        "before": [],
        "repositories": [],
        "branch": 580,
        "flavour": "open",
        "pin": "nvidia-driver-pinning-580",
        "stream": "580-open",
        "headers": ["linux-headers-6.1.0-25-cloud-amd64"],
        "follow": ["linux-headers-cloud-amd64"],
        "newest_kernel": ["linux-image-cloud-amd64", "linux-headers-cloud-amd64"],
        "packages": ["nvidia-driver-cuda", "nvidia-persistenced", "nvidia-modprobe", "nvidia-kernel-open-dkms"],
        "toolkit": "",
        "initramfs": ["update-initramfs", "-u", "-k", "all"],
        "uek": False,
    }
    trixie = plan(TRIXIE, toolkit="13.0")
    assert trixie["pin"] == "nvidia-driver-pinning-595"
    assert trixie["fingerprint"].endswith("8793F200") and trixie["key"] == "8793F200.pub"
    assert trixie["toolkit"] == "cuda-toolkit-13-0"
    assert plan(UBUNTU)["packages"] == [
        "libnvidia-compute-580",
        "nvidia-utils-580",
        "nvidia-compute-utils-580",
        "nvidia-modprobe",
        "nvidia-dkms-580-open",
    ]
    assert plan(replace(UBUNTU, devices=[V100]))["packages"][-1] == "nvidia-dkms-580"
    assert plan(UBUNTU, "595")["packages"] == [
        "libnvidia-compute",
        "nvidia-persistenced",
        "nvidia-modprobe",
        "nvidia-dkms-open",
    ]


def test_oracle_linux_gets_the_headers_of_its_kernel() -> None:
    rhck, uek = plan(RHCK), plan(replace(UEK, devices=[P100]))
    assert (rhck["folder"], rhck["manager"], rhck["pin"]) == ("rhel9", "dnf", "")
    assert (rhck["before"], rhck["repositories"]) == (["oracle-epel-release-el9"], ["ol9_developer_EPEL"])
    assert rhck["headers"] == ["kernel-devel-5.14.0-570.12.1.el9_6.x86_64"]
    assert (rhck["stream"], rhck["packages"][-1]) == ("580-open", "kmod-nvidia-open-dkms")
    assert uek["headers"] == ["kernel-uek-devel-6.12.0-100.28.2.2.el9uek.x86_64"]
    assert uek["newest_kernel"] == ["kernel-uek", "kernel-uek-devel"]
    assert (uek["stream"], uek["packages"][-1]) == ("580-dkms", "kmod-nvidia-latest-dkms")
    assert uek["uek"] and rhck["uek"]  # DKMS builds for each kernel that is there, whichever runs
    assert rhck["initramfs"][0] == "dracut"


def test_cards_behind_switches_get_the_fabric_manager() -> None:
    assert plan(replace(DEBIAN, devices=[A100] * 8, switches=6))["packages"][-1] == "nvidia-fabricmanager-580"
    assert plan(replace(TRIXIE, devices=[H100] * 8, switches=4))["packages"][-1] == "nvidia-fabricmanager"
    assert plan(replace(RHCK, devices=[H100] * 8, switches=4))["packages"][-1] == "nvidia-fabricmanager"
    assert "nvidia-fabricmanager" not in plan(replace(RHCK, devices=[H100] * 8))["packages"]


def test_a_driver_that_works_stands_in_the_way_of_no_toolkit() -> None:
    chosen = plan(replace(TRIXIE, devices=[P100], secure_boot=True, works=True), "580", "12.9")
    assert chosen["toolkit"] == "cuda-toolkit-12-9" and not {"branch", "packages", "pin"} & set(chosen)
    with pytest.raises(NoDriverError, match="nvidia_cuda_toolkit is '13'"):
        plan(replace(DEBIAN, works=True), toolkit="13")


def test_the_newest_kernel_is_one_of_the_running_kind() -> None:
    older = "5.14.0-503.11.1.el9_5.x86_64"
    assert newest_kernel([UEK.kernel, older, RHCK.kernel], older) == RHCK.kernel
    assert newest_kernel([UEK.kernel, older, RHCK.kernel], UEK.kernel) == UEK.kernel
    assert newest_kernel([UEK.kernel], RHCK.kernel) == ""


def test_the_kernel_of_the_next_boot_gets_headers_too() -> None:
    chosen = plan(replace(DEBIAN, newest="6.1.0-26-cloud-amd64"))
    assert chosen["headers"] == ["linux-headers-6.1.0-25-cloud-amd64", "linux-headers-6.1.0-26-cloud-amd64"]
    assert len(plan(replace(DEBIAN, newest=DEBIAN.kernel))["headers"]) == 1


@pytest.mark.parametrize(
    ("name", "kernel", "follow"),
    [
        ("debian", "6.1.0-25-amd64", ["linux-headers-amd64"]),
        ("debian", "6.12.48+deb13-cloud-amd64", ["linux-headers-cloud-amd64"]),
        ("debian", "6.12.48+deb13-rt-amd64", ["linux-headers-rt-amd64"]),
        ("ubuntu", "6.8.0-60-generic", ["linux-headers-generic"]),
        ("ubuntu", "6.14.0-24-generic", ["linux-headers-generic-hwe-24.04"]),
        ("ubuntu", "6.14.0-1010-oracle", ["linux-headers-oracle"]),
        ("debian", "6.18.44-somebody", []),  # built by somebody: nobody packages its headers, but one may try
        ("ubuntu", "6.18.44", []),
    ],
)
def test_headers_follow_the_kernel(name: str, kernel: str, follow: list[str]) -> None:
    exact, later, newest = header_packages(name, kernel)
    assert exact == [f"linux-headers-{kernel}"] and later == follow
    assert newest == ([follow[0].replace("headers", "image"), *follow] if follow else [])


@pytest.mark.parametrize(
    ("host", "message"),
    [
        (replace(DEBIAN, name="fedora", version="42"), "this host runs fedora 42: use one of these"),
        (replace(UBUNTU, version="22.04"), "this host runs ubuntu 22.04"),
        (replace(RHCK, version="8.10"), "this host runs ol 8.10"),
        (replace(DEBIAN, name="", version=""), "this host runs an unknown system"),
        (replace(DEBIAN, machine="aarch64"), "this host is aarch64"),
        (replace(DEBIAN, secure_boot=True), "Secure Boot is on, .*: switch Secure Boot off"),
    ],
)
def test_a_host_without_a_driver_is_told_why(host: Host, message: str) -> None:
    with pytest.raises(NoDriverError, match=message):
        plan(host)


def test_kernels_sort_as_numbers() -> None:
    kernels = ["6.10.0-1-amd64", "6.1.0-25-amd64", "6.1.0-9-amd64", "6.1.0-10-amd64"]
    assert sorted(kernels, key=version_key) == [kernels[place] for place in (2, 3, 1, 0)]
