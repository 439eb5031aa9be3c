"""A handful of hosts in a network of their own, with the keys and the inventory by which Ansible reaches them."""

import json
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from .machine import Machine, Seed
from .network import PROXY_URL, Network
from .tree import tree

LOGIN = "op"
START_S = 120


class TestHosts:
    """Hosts that run. `folder` gets id_ed25519 (login key), known_hosts (pins) and inventory.yml (group faceswap)."""

    __test__ = False  # pytest: this is no test

    def __init__(self, folder: Path, suites: Mapping[str, str]) -> None:
        """Make a host for each name, of the Debian suite that it is mapped to. Raises OSError."""
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.key = self.folder / "id_ed25519"
        self.pins = self.folder / "known_hosts"
        self.inventory = self.folder / "inventory.yml"
        shutil.rmtree(self.folder / "machines", ignore_errors=True)  # empty folders that a killed run left
        _new_key(self.key)
        trees = {suite: tree(suite, PROXY_URL) for suite in sorted(set(suites.values()))}
        self.network = Network()
        self.machines = {name: self._machine(name, trees[suite]) for name, suite in suites.items()}
        lines = [f"{name} {self._host_key(name).read_text()}" for name in suites]
        self.pins.write_text("".join(lines))
        self.inventory.write_text(json.dumps(self._inventory(), indent=1) + "\n")  # JSON is YAML
        try:
            for machine in self.machines.values():
                machine.create()
                machine.start()
            with ThreadPoolExecutor() as pool:
                list(pool.map(self.wait_for, self.machines))
        except BaseException:
            self.close()
            raise

    def address(self, name: str) -> str:
        """Address of a host."""
        return self.machines[name].seed.address

    def target(self, name: str) -> str:
        """The name by which SSH knows a host; the way to its address is in `ssh_options`.

        Addresses are the same in each network of test hosts, and Ansible would take one's connection for the other's.
        """
        return f"{name}-{self.network.number}"

    def ssh_options(self, name: str) -> list[str]:
        """OpenSSH's options for a pinned connection to a host, from outside its network."""
        return [
            *(
                "-o",
                f"HostKeyAlias={name}",
                "-o",
                f'UserKnownHostsFile="{self.pins}"',
                "-o",
                "StrictHostKeyChecking=yes",
            ),
            *("-o", f"ProxyCommand=nsenter --net={self.network.namespace} nc {self.address(name)} %p"),
        ]

    def run(self, name: str, command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a shell command on a host, as its login, who may use sudo."""
        ssh = ["ssh", *self.ssh_options(name), "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-i", str(self.key)]
        ssh += ["-o", "ServerAliveInterval=2", "-o", "ServerAliveCountMax=2"]  # a rebooting host just falls silent
        return subprocess.run(
            [*ssh, f"{LOGIN}@{self.target(name)}", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def wait_for(self, name: str) -> None:
        """Return when a host lets its login in and cloud-init has ended. Raises OSError after two minutes."""
        deadline = time.monotonic() + START_S
        while (said := self.run(name, "timeout 100 cloud-init status --wait", START_S)).returncode in (124, 255):
            self._check(name, deadline, said.stderr)

    def _check(self, name: str, deadline: float, said: str) -> None:
        """Wait a moment for a host, but no longer than to the deadline."""
        if time.monotonic() > deadline:
            console = (self.machines[name].folder / "console.log").read_text(errors="replace")
            raise OSError(f"{name} does not answer ({said.strip()}); its console: {console[-2000:]}")
        time.sleep(0.2)

    def reboot(self, name: str) -> None:
        """Have a host reboot, and return when it has. Raises OSError after two minutes."""
        boot = "cat /proc/sys/kernel/random/boot_id"
        before = self.run(name, boot).stdout
        self.run(name, "sudo systemctl reboot")
        deadline = time.monotonic() + START_S
        while (after := self.run(name, boot)).returncode == 255 or after.stdout == before:
            self._check(name, deadline, after.stderr)
        self.wait_for(name)

    def cut(self, name: str) -> None:
        """Pull a host's network cable."""
        self.network.cut(self.address(name))

    def mend(self, name: str) -> None:
        """Put it back."""
        self.network.mend(self.address(name))

    def close(self) -> None:
        """Remove hosts and network; the folder stays."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(Machine.remove, self.machines.values()))
        self.network.close()

    def _host_key(self, name: str) -> Path:
        return self.folder / f"{name}.key.pub"

    def _machine(self, name: str, root: Path) -> Machine:
        private = self.folder / f"{name}.key"
        _new_key(private)
        config = {
            "ssh_deletekeys": True,
            "ssh_keys": {"ed25519_private": private.read_text(), "ed25519_public": self._host_key(name).read_text()},
        }
        seed = Seed(
            address=self.network.new_address(),
            user=LOGIN,
            hostname=name,
            authorized_keys=self.key.with_suffix(".pub").read_text(),
            user_data=b"#cloud-config\n" + json.dumps(config).encode(),
        )
        return Machine(self.network, root, self.folder / "machines" / name, seed)

    def _inventory(self) -> object:
        hosts = {
            name: {
                "ansible_host": self.target(name),
                "ansible_user": LOGIN,
                "ansible_ssh_private_key_file": str(self.key),
                "ansible_ssh_common_args": shlex.join(self.ssh_options(name)),
                "ansible_python_interpreter": "/usr/bin/python3",
            }
            for name in self.machines
        }
        return {"faceswap": {"hosts": hosts}}


@contextmanager
def test_hosts(folder: Path, suites: Mapping[str, str]) -> Iterator[TestHosts]:
    """Hosts for as long as the context lasts."""
    hosts = TestHosts(folder, suites)
    try:
        yield hosts
    finally:
        hosts.close()


test_hosts.__test__ = False  # type: ignore[attr-defined]  # pytest: nor is this


def _new_key(path: Path) -> None:
    for old in (path, path.with_name(path.name + ".pub")):
        old.unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.stem, "-f", str(path)], check=True)
