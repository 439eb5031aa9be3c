"""What can be wrong with a host, on a real one: one clear sentence, a failure's exit code, and the next run mends it.

One host serves all; the engine is installed there once, by the test that kills an installation.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from testhosts.hosts import TestHosts, test_hosts

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
NAME = "studio"
FAILED, UNREACHABLE = 2, 4
ENGINE = "/opt/faceswap-oci/engine"


@dataclass
class Played:
    """What one run of ansible-playbook said."""

    code: int
    output: str

    @property
    def sentence(self) -> str:
        """The only message of the run."""
        told = re.findall(r'"msg": "((?:[^"\\]|\\.)*)"', self.output)
        assert len(told) == 1, self.output
        return str(json.loads(f'"{told[0]}"'))

    @property
    def changed(self) -> int:
        found = re.search(r"changed=(\d+)", self.output)
        assert found, self.output
        return int(found[1])


class Site:
    """The host, and Ansible as a user calls it."""

    def __init__(self, hosts: TestHosts) -> None:
        self.hosts = hosts

    @property
    def where(self) -> str:
        """The host and its address, as a sentence names them."""
        hosts = json.loads(self.hosts.inventory.read_text())["faceswap"]["hosts"]
        return f"{NAME} at {hosts[NAME]['ansible_host']}"

    @contextmanager
    def command(self, **values: Any) -> Iterator[tuple[list[str], dict[str, str]]]:
        """The play that installs, and an environment in which no connection of before is used again."""
        with tempfile.TemporaryDirectory() as sockets:
            words = [str(BIN / "ansible-playbook"), "playbooks/faceswap_install.yml", "-i", str(self.hosts.inventory)]
            environment = {
                **os.environ,
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
                "ANSIBLE_SSH_CONTROL_PATH_DIR": sockets,
            }
            yield [*words, "-e", json.dumps({"faceswap_install_engine": "builtin", **values})], environment

    def play(self, **values: Any) -> Played:
        with self.command(**values) as (words, environment):
            done = subprocess.run(
                words,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=600,
            )
        assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
        return Played(done.returncode, done.stdout)

    def on_host(self, command: str) -> str:
        done = self.hosts.run(NAME, command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def mended(self, **values: Any) -> None:
        """The cause is gone: the same again works, and nothing was spoilt meanwhile."""
        again = self.play(**values)
        assert again.code == 0, again.output
        assert again.changed == 0


@pytest.fixture(scope="module")
def site(need_hosts: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with test_hosts(tmp_path_factory.mktemp("bad-input"), {NAME: "bookworm"}) as hosts:
        yield Site(hosts)


@pytest.fixture(scope="module")
def installed(site: Site) -> Site:
    """With the engine; where the first tests of this file ran, it is there."""
    done = site.play()
    assert done.code == 0, done.output
    return site


@contextmanager
def without_packages(site: Site) -> Iterator[None]:
    """For this time the host reaches no package source."""
    site.hosts.network.proxy.open = False
    try:
        yield
    finally:
        site.hosts.network.proxy.open = True


def test_no_way_to_the_packages(site: Site) -> None:
    with without_packages(site):
        played = site.play()
    assert played.code == FAILED
    assert played.sentence.startswith("The system's packages python3-venv could not be installed (Failed to fetch ")
    assert played.sentence.endswith("package sources (network, DNS, proxy), then run the same again.")
    site.on_host("sudo apt-get -q update && sudo apt-get -q -y install --no-install-recommends python3-venv")
    with without_packages(site):
        played = site.play()
    assert played.code == FAILED
    said = "The packages could not be installed: this host does not reach the package index: see to its network"
    assert played.sentence.startswith(said)


def test_an_installation_that_was_killed_is_mended_by_the_next_run(site: Site) -> None:
    with site.command() as (words, environment):
        killed = subprocess.Popen(
            words,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,  # pytest-xdist gives its workers one that Ansible refuses
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        # Some packages are there, and not yet all.
        half = f"ls -d {ENGINE}/venv/lib/python3*/site-packages/*.dist-info 2>/dev/null | wc -l"
        deadline = time.monotonic() + 300
        while int(site.on_host(half)) < 4:
            assert killed.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
    site.on_host("sudo pkill -KILL -f '[v]env/bin/python -m pip'; sudo pkill -KILL -f '[A]nsiballZ'; true")
    site.on_host(f"test -e {ENGINE}/venv && ! test -e {ENGINE}/venv/lock.json && ! test -e {ENGINE}/engine.json")
    again = site.play()
    assert again.code == 0, again.output
    assert "usage" in site.on_host(f"{ENGINE}/venv/bin/python {ENGINE}/builtin-*/faceswap.py --help")
    site.on_host(f"{ENGINE}/venv/bin/python {ENGINE}/try_engine.py {ENGINE}/engine.json")
    site.mended()


def test_an_engine_that_does_not_work_is_not_described(installed: Site, tmp_path: Path) -> None:
    broken = tmp_path / "engine"
    (broken / "minifaceswap").mkdir(parents=True)
    for name in ("faceswap.py", "minifaceswap/__init__.py"):
        (broken / name).touch()
    nothing = tmp_path / "nothing.txt"
    nothing.write_text("# nothing\n")
    played = installed.play(
        faceswap_install_dir="/opt/elsewhere",
        faceswap_install_builtin_source=str(broken),
        faceswap_install_builtin_lock=str(nothing),
    )
    assert played.code == FAILED
    said = (
        "The engine was installed, but does not work: Its module minifaceswap.convert does not load (No module named"
    )
    assert played.sentence.startswith(said)
    installed.on_host("test -d /opt/elsewhere/venv && ! test -e /opt/elsewhere/engine.json")


def test_an_unsupported_system(installed: Site) -> None:
    installed.on_host("sudo sh -c 'rm /etc/os-release; sed s/12/11/ /usr/lib/os-release > /etc/os-release'")
    played = installed.play()
    assert played.code == FAILED
    assert played.sentence == (
        "studio runs Debian GNU/Linux 11 (bookworm), which is not supported: "
        "use a host with Ubuntu 24.04, Oracle Linux 9 or Debian 12 and 13."
    )
    installed.on_host("sudo ln -sf ../usr/lib/os-release /etc/os-release")
    installed.mended()


def test_no_sudo(installed: Site) -> None:
    installed.on_host("sudo useradd --create-home --shell /bin/bash plain && sudo cp -r ~/.ssh ~plain/")
    installed.on_host("sudo chown -R plain ~plain/.ssh")
    played = installed.play(ansible_user="plain")
    assert played.code == FAILED
    assert played.sentence.startswith(
        "plain cannot become root on studio without a password (a password is required)"
    )
    assert "NOPASSWD" in played.sentence
    installed.on_host("echo 'plain ALL=(ALL) NOPASSWD:ALL' | sudo tee /etc/sudoers.d/plain")
    installed.mended(ansible_user="plain")


def test_a_wrong_user(installed: Site) -> None:
    played = installed.play(ansible_user="ubuntu")
    assert played.code == UNREACHABLE
    said = (
        f"{installed.where} does not let ubuntu in with the key {installed.hosts.key} (Permission denied (publickey"
    )
    assert played.sentence.startswith(said)
    assert ": set ansible_user to the host's login, and ansible_ssh_private_key_file" in played.sentence
    installed.mended()


def test_a_wrong_key(installed: Site, tmp_path: Path) -> None:
    other = tmp_path / "id"
    played = installed.play(ansible_ssh_private_key_file=str(other))
    assert played.code == UNREACHABLE and f"{other} " in played.sentence
    assert played.sentence.endswith(
        "that file is not there: bring it, or set ansible_ssh_private_key_file to another one."
    )
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    played = installed.play(ansible_ssh_private_key_file=str(other))
    assert played.code == UNREACHABLE and "Permission denied (publickey" in played.sentence


def test_a_host_that_does_not_answer(installed: Site) -> None:
    installed.hosts.cut(NAME)
    try:
        played = installed.play(ansible_timeout=3)
    finally:
        installed.hosts.mend(NAME)
    assert played.code == UNREACHABLE
    assert played.sentence.startswith(f"{installed.where} cannot be reached (")
    installed.mended()


def test_a_clock_that_is_wrong(installed: Site) -> None:
    """The host shares this machine's clock, so what it is asked for is told wrong instead."""
    wrapper = "#!/bin/sh\nexpr $(/bin/date +%s) + 1000"
    installed.on_host(f"echo '{wrapper}' | sudo tee /usr/local/bin/date && sudo chmod +x /usr/local/bin/date")
    played = installed.play()
    assert played.code == FAILED
    assert played.sentence.startswith("The clock of studio is 16 minutes ahead of this machine's")
    assert "time synchronisation" in played.sentence
    installed.on_host("sudo rm /usr/local/bin/date")
    installed.mended()


def test_another_host_key(installed: Site) -> None:
    """As after a rebuilt instance, or before a host that only says that it is ours. The wrapper says the same."""
    key = "/etc/ssh/ssh_host_ed25519_key"
    new = installed.on_host(f"sudo rm {key} && sudo ssh-keygen -q -t ed25519 -N '' -f {key} && sudo cat {key}.pub")
    played = installed.play()
    assert played.code == UNREACHABLE
    pins = installed.hosts.pins
    said = f"{installed.where} shows another host key than the one pinned in line 1 of {pins}"
    assert played.sentence.startswith(said)
    with installed.command() as (_, environment):
        words = [str(BIN / "faceswap-oci"), "run", "--tags", "faceswap_install", "-i", str(installed.hosts.inventory)]
        wrapped = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert wrapped.returncode == UNREACHABLE and "Traceback" not in wrapped.stderr
    assert played.sentence in wrapped.stderr + wrapped.stdout
    pins.write_text(f"{NAME} {' '.join(new.split()[:2])}\n")
    installed.mended()
