"""After nvidia_cuda, on hosts whose kernel, GPU and driver are dummies (prepare.yml): has each what it needs?

The tests of a host stand in an order: each leaves it as the next one finds it.
"""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

PROJECT = Path(__file__).parents[3]
GPU = "/srv/gpu"
FACT = "/etc/ansible/facts.d/nvidia_cuda.fact"

INSTALLED = {  # branch, cards, flavour's package
    "debian12": ("580", 1, "nvidia-kernel-open-dkms"),
    "debian13": ("595", 1, "nvidia-kernel-open-dkms"),
    "pascal": ("580", 2, "nvidia-kernel-dkms"),
}


def on(*names: str) -> pytest.MarkDecorator:
    """Mark a test as one for these hosts."""
    return pytest.mark.parametrize("host", names, indirect=True, scope="module")


everywhere = on(*INSTALLED)


@pytest.fixture(scope="module")
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """The host of a test; a connection to it ends when it falls silent, as a host does that reboots."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "ANSIBLE_SSH_EXTRA_ARGS", "-o ConnectTimeout=5 -o ServerAliveInterval=2 -o ServerAliveCountMax=2"
        )
        found = testinfra.get_host(f"ansible://{request.param}", ansible_inventory=f"{PROJECT}/molecule/inventory")
    found.name = request.param
    yield found


def sudo(host: Host, script: str) -> str:
    """Return what a shell script says that root runs; it must succeed."""
    done = host.run("sudo -n sh -c %s", script)
    assert done.rc == 0, f"{script}: {done.stdout}{done.stderr}"
    return str(done.stdout)


def play(host: Host, *words: str) -> tuple[int, str]:
    """Play the role on a host once more; return the exit code and all that was said, on one line."""
    environment = {
        **os.environ,
        "ANSIBLE_ROLES_PATH": str(PROJECT / "roles"),
        "ANSIBLE_COLLECTIONS_PATH": str(PROJECT / "collections"),
        "ANSIBLE_PIPELINING": "True",
        "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "False",
        "ANSIBLE_NOCOLOR": "True",
        "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=60s -o ServerAliveInterval=5",
    }
    command = ["ansible-playbook", "-i", str(PROJECT / "molecule/inventory"), "--limit", host.name, *words]
    done = subprocess.run(
        [*command, str(PROJECT / "molecule/nvidia_cuda/converge.yml")],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def boot(host: Host) -> str:
    return str(host.run("cat /proc/sys/kernel/random/boot_id").stdout).strip()


def reboot(host: Host) -> None:
    """Have the host boot, and return when it lets its login in again."""
    before = boot(host)
    sudo(host, "systemd-run --quiet --on-active=1 systemctl reboot")
    deadline = time.monotonic() + 90
    while True:
        try:
            after = boot(host)
        except (RuntimeError, AssertionError):  # it is on its way down or up
            after = ""
        if after not in ("", before):
            break
        assert time.monotonic() < deadline, "the host did not come back"
        time.sleep(0.5)
    host.run("systemctl is-system-running --wait")


def smi(host: Host) -> list[list[str]]:
    """Return version and persistence of each card, as the driver says."""
    said = host.check_output("nvidia-smi --query-gpu=driver_version,persistence_mode --format=csv,noheader")
    return [line.split(", ") for line in said.splitlines()]


def fact(host: Host) -> dict[str, Any]:
    """Return what Ansible gathers, as a login without root."""
    found: dict[str, Any] = json.loads(host.check_output("cat " + FACT))
    return found


@everywhere
def test_the_driver_works_on_its_branch(host: Host) -> None:
    branch, cards, kernel_package = INSTALLED[host.name]
    assert smi(host) == [[f"{branch}.1.1", "Enabled"]] * cards
    packages = {"nvidia-kernel-open-dkms", "nvidia-kernel-dkms"}
    assert {name for name in packages if host.package(name).is_installed} == {kernel_package}


@everywhere
def test_an_upgrade_keeps_to_the_branch(host: Host) -> None:
    branch = INSTALLED[host.name][0]
    offered = host.check_output("apt-cache madison nvidia-driver-cuda")
    assert "610.1.1" in offered  # or this would prove nothing
    assert f"Candidate: {branch}.1.1" in host.check_output("apt-cache policy nvidia-driver-cuda")
    assert "nvidia" not in sudo(host, "apt-get --simulate --quiet=2 dist-upgrade | grep ^Inst || true")


@everywhere
def test_programs_are_told_what_to_be_built_for(host: Host) -> None:
    branch, cards, _ = INSTALLED[host.name]
    assert fact(host) == {
        "compute_capability": "8.6",
        "driver_version": f"{branch}.1.1",
        "cards": ["Dummy GPU"] * cards,
    }


@on("debian12", "debian13")
def test_the_toolkit_is_there_where_it_was_asked_for(host: Host) -> None:
    assert (host.run("/usr/local/cuda-13.0/bin/nvcc").rc == 0) is (host.name == "debian13")


@on("debian13")
def test_the_next_boot_has_the_driver_too(host: Host) -> None:
    reboot(host)
    assert smi(host) == [["595.1.1", "Enabled"]]
    assert not host.file(f"{GPU}/sys/module/nouveau").exists
    before = boot(host)
    code, said = play(host)
    assert code == 0 and " changed=0 " in said, said
    assert boot(host) == before


@on("debian12")
def test_a_kernel_update_is_survived(host: Host) -> None:
    before = host.check_output(f"cat {GPU}/proc/sys/kernel/osrelease")
    sudo(host, "DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet linux-image-amd64")
    reboot(host)
    assert host.check_output(f"cat {GPU}/proc/sys/kernel/osrelease") != before
    assert smi(host) == [["580.1.1", "Enabled"]]
    code, said = play(host)
    assert code == 0 and " changed=0 " in said, said


@on("debian12")
def test_a_gpu_that_computes_wrongly_is_found(host: Host) -> None:
    sudo(host, f"echo wrong >{GPU}/cuda")
    try:
        code, said = play(host)
        assert code == 2 and "GPU 0 (Dummy GPU) computes wrongly: 1 of 4096 results" in said, said
    finally:
        sudo(host, f"rm {GPU}/cuda")


@on("debian12")
def test_a_gpu_that_a_job_fills_is_taken_as_verified(host: Host) -> None:
    sudo(host, f"echo full >{GPU}/cuda; echo 1 >{GPU}/sys/module/nvidia_uvm/refcnt")
    try:
        code, said = play(host)
        assert code == 0 and " changed=0 " in said and "what was verified earlier is taken for true" in said, said
        sudo(host, f"rm {GPU}/sys/module/nvidia_uvm/refcnt")  # nobody uses it, so it should have the memory
        code, said = play(host)
        assert code == 2 and "other programs fill the card's memory" in said, said
    finally:
        sudo(host, f"rm -f {GPU}/cuda {GPU}/sys/module/nvidia_uvm/refcnt")


@on("debian12")
def test_who_just_looks_is_told_of_a_gpu_that_cannot_be_used(host: Host) -> None:
    sudo(host, f"echo none >{GPU}/cuda")
    try:
        code, said = play(host, "-e", "nvidia_cuda_install=false")
        assert code == 0 and " changed=0 " in said and "The GPUs do not compute, and" in said, said
        code, said = play(host, "-e", "nvidia_cuda_install=false", "-e", "nvidia_cuda_required=true")
        assert code == 2 and "the driver finds no card it supports" in said, said
    finally:
        sudo(host, f"rm {GPU}/cuda")


@on("pascal")
def test_the_kernel_without_headers_was_replaced(host: Host) -> None:
    assert host.check_output(f"cat {GPU}/proc/sys/kernel/osrelease") == "6.1.0-91-amd64"


@on("image")
def test_a_driver_that_works_is_left_alone(host: Host) -> None:
    assert smi(host)[0][0] == "575.57.08"
    assert fact(host) == {"compute_capability": "8.6", "driver_version": "575.57.08", "cards": ["Dummy GPU"]}
    assert host.run("dpkg -l '*nvidia*' dkms 'linux-headers*'").stdout == ""
    assert not host.file("/etc/apt/sources.list.d/nvidia-cuda.sources").exists
    assert not host.file("/etc/modprobe.d/nvidia-cuda-no-nouveau.conf").exists


@on("image")
def test_who_cannot_become_root_is_told(host: Host) -> None:
    refused = "/usr/local/bin/sudo"
    script = "#!/bin/sh\\necho sudo: a password is required >&2; exit 1\\n"
    sudo(host, f"echo '{{}}' >{FACT}; printf '{script}' >{refused}; chmod 755 {refused}")
    try:
        code, said = play(host)
        assert code == 2 and "cannot become root on image without a password (a password is required)" in said, said
    finally:
        assert host.run(f"/usr/bin/sudo -n rm {refused}").rc == 0


@on("image")
def test_a_toolkit_leaves_driver_and_foreign_entries_alone(host: Host) -> None:
    """An entry for the repository is there, with a key elsewhere, as NVIDIA's package cuda-keyring brings it."""
    repository, key = "/srv/repository/debian13/x86_64", "/usr/share/keyrings/cuda-archive-keyring.asc"
    entry = f"deb [signed-by={key}] file://{repository}/ /"
    sudo(host, f"cp {repository}/8793F200.pub {key}; echo '{entry}' >/etc/apt/sources.list.d/cuda.list")
    code, said = play(host, "-e", "nvidia_cuda_toolkit=13.0", "-e", "nvidia_cuda_branch=580")
    assert code == 0, said
    assert host.file("/usr/local/cuda-13.0/bin/nvcc").exists and smi(host)[0][0] == "575.57.08"
    assert not host.file("/etc/apt/sources.list.d/nvidia-cuda.sources").exists
    assert "Package: cuda-*\n" in host.file("/etc/apt/preferences.d/nvidia-cuda").content_string
    sudo(host, "apt-get --quiet=2 update")


@on("bare")
def test_without_a_gpu_nothing_is_there(host: Host) -> None:
    assert not host.file(FACT).exists  # prepare.yml left one of a GPU that is gone
    assert host.run("dpkg -l '*nvidia*' dkms").stdout == ""
    code, said = play(host, "-e", "nvidia_cuda_required=true")
    assert code == 2 and "no NVIDIA GPU: CPU build, but nvidia_cuda_required is true: use a host with" in said, said


@on("bare")
def test_secure_boot_is_refused_early(host: Host) -> None:
    card, firmware = f"{GPU}/sys/bus/pci/devices/0000:00:01.0", f"{GPU}/sys/firmware/efi/efivars"
    sudo(host, f"mkdir {card}; cd {card}; echo 0x10de >vendor; echo 0x030200 >class; echo 0x2236 >device")
    variable = f"{firmware}/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
    sudo(host, f"mkdir -p {firmware}; printf '\\006\\000\\000\\000\\001' >{variable}")
    code, said = play(host)
    assert code == 2 and "without a working driver: Secure Boot is on," in said, said
    assert "switch Secure Boot off" in said and " changed=0 " in said, said
    sudo(host, f"rm -r {GPU}/sys/firmware")


@on("bare")
def test_just_looking_changes_nothing(host: Host) -> None:
    code, said = play(host, "-e", "nvidia_cuda_install=false")
    assert code == 0 and " changed=0 " in said and "without a working driver: CPU build" in said, said


@on("bare")
def test_another_key_is_not_trusted(host: Host) -> None:
    code, said = play(host, "-e", "nvidia_cuda_repository_fingerprint=" + "0" * 40)
    assert code == 2 and re.search("has the fingerprint [0-9A-F]{40} and not 0{40}: it is not trusted", said), said
    assert not host.file("/etc/apt/sources.list.d/nvidia-cuda.sources").exists


@on("bare")
def test_without_leave_nothing_is_rebooted(host: Host) -> None:
    sudo(host, f"mkdir {GPU}/sys/module/nouveau; touch {GPU}/console")
    before = boot(host)
    sudo(host, f"mkdir {GPU}/sys/module/nvidia_uvm; echo 1 >{GPU}/sys/module/nvidia_uvm/refcnt")
    code, said = play(host)
    assert code == 2 and "it would end the programs that compute on the GPUs now" in said, said
    sudo(host, f"rm -r {GPU}/sys/module/nvidia_uvm")
    code, said = play(host, "-e", "nvidia_cuda_may_reboot=false")
    assert code == 2 and "Nouveau is in use and cannot be unloaded" in said, said
    assert "only a reboot helps, and nvidia_cuda_may_reboot is false" in said, said
    assert boot(host) == before


@on("bare")
def test_what_an_earlier_run_left_is_completed(host: Host) -> None:
    reboot(host)  # by hand, as the message says
    code, said = play(host)
    assert code == 0, said
    assert smi(host) == [["580.1.1", "Enabled"]]
