"""The hosts that everything else is tried on: real, reachable by a pinned key only, and gone without a trace."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from testhosts.hosts import TestHosts, test_hosts
from testhosts.network import CONTROLLER

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.usefixtures("need_hosts")


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestHosts]:
    with test_hosts(tmp_path_factory.mktemp("some hosts"), {"debian12": "bookworm", "debian13": "trixie"}) as hosts:
        yield hosts


@pytest.mark.parametrize(("name", "release"), [("debian12", "12"), ("debian13", "13")])
def test_a_host_is_a_whole_system(hosts: TestHosts, name: str, release: str) -> None:
    said = hosts.run(
        name, "ps -p 1 -o comm=; systemctl is-system-running; . /etc/os-release; echo $VERSION_ID; uname -n"
    )
    assert said.stdout.split() == ["systemd", "running", release, name], said
    assert hosts.run(name, "sudo -n id -u").stdout.strip() == "0"


def test_a_host_reboots_and_keeps_its_disk(hosts: TestHosts) -> None:
    hosts.run("debian13", "echo kept | sudo tee /etc/kept; sudo touch /run/lost")
    hosts.reboot("debian13")
    assert hosts.run("debian13", "cat /etc/kept; ls /run/lost").stdout == "kept\n"


def test_another_host_key_is_refused(hosts: TestHosts, tmp_path: Path) -> None:
    pins = hosts.pins.read_text()
    first, second = (line.split(" ", 1)[1] for line in pins.splitlines())
    try:
        hosts.pins.write_text(f"debian12 {second}\ndebian13 {first}\n")
        refused = hosts.run("debian12", "true")
    finally:
        hosts.pins.write_text(pins)
    assert refused.returncode == 255 and "Host key verification failed" in refused.stderr


def test_packages_come_by_the_proxy_and_nothing_else_does(hosts: TestHosts) -> None:
    assert hosts.run("debian12", "sudo apt-get -q update", 120).returncode == 0
    assert hosts.run("debian12", "ip route get 192.0.2.1").stdout.split()[2] == CONTROLLER
    beyond = subprocess.run(["nsenter", f"--net={hosts.network.namespace}", "ip", "route", "get", "192.0.2.1"],
                            capture_output=True, text=True)  # fmt: skip
    assert "unreachable" in beyond.stderr  # the bridge leads nowhere
    proxied = hosts.run("debian12", "http_proxy=http://198.51.100.1:3128 python3 -c "
                        "\"import urllib.request as u; u.urlopen('http://nowhere.invalid/')\"")  # fmt: skip
    assert "403" in proxied.stderr
    hosts.network.proxy.open = False
    try:
        cut_off = hosts.run(
            "debian12", "sudo apt-get -q update -o Acquire::Retries=0 -o APT::Update::Error-Mode=any", 120
        )
    finally:
        hosts.network.proxy.open = True
    assert cut_off.returncode != 0 and "403" in cut_off.stdout + cut_off.stderr


def test_a_cable_can_be_pulled_and_put_back(hosts: TestHosts) -> None:
    hosts.cut("debian12")
    assert hosts.run("debian12", "true").returncode == 255
    assert hosts.run("debian13", "true").returncode == 0
    hosts.mend("debian12")
    assert hosts.run("debian12", "true").returncode == 0


def processes(word: str) -> list[int]:
    """The processes that have a word in their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if word in (folder / "cmdline").read_text():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def call(verb: str, state: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "testhosts", verb, "--state", str(state), *words],
        env=os.environ | {"PYTHONPATH": str(ROOT / "emulator")}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_a_run_that_died_leaves_nothing_and_the_next_one_works(tmp_path: Path) -> None:
    state = tmp_path / "of a run"
    assert call("up", state, "--host", "one:trixie").returncode == 0
    ready = json.loads((state / "ready.json").read_text())
    assert processes(str(state))
    second = call("up", state, "--host", "one:trixie")
    assert second.returncode == 1 and "there are hosts in" in second.stderr
    os.kill(ready["pid"], signal.SIGKILL)
    end = time.monotonic() + 20
    while processes(str(state)) and time.monotonic() < end:
        time.sleep(0.1)
    assert processes(str(state)) == []
    assert str(state) not in Path("/proc/mounts").read_text()
    assert call("up", state, "--host", "one:trixie").returncode == 0
    assert call("down", state).returncode == 0
    assert processes(str(state)) == []
    assert call("down", state).returncode == 0
