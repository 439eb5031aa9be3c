"""The machines behind the instances: a real SSH server for each that has a public address.

There are two kinds. `HostGuests` are test hosts, with systemd and a cloud-init that reads the posted user data;
`SshGuests` are quicker and less: this machine's own system behind an sshd.

An `SshGuests` machine is two processes. Its *disk* is a process that holds a mount namespace: an overlay over the
machine's own system whose upper layer lies in memory, so that nothing a guest does reaches the machine. Its *power*
is a process namespace inside that one with sshd in it. Both live as long as their standard input is open: when the
emulator goes, however it goes, the kernel closes the pipes and takes both away, with all they hold.
"""

import errno
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from testhosts.machine import Machine, Seed
from testhosts.network import PATH, PROXY_URL, Network, end, spawn
from testhosts.tree import tree

_NEEDED = ("unshare", "nsenter", "mount", "umount", "pivot_root", "ssh-keygen", "sshd", "sudo")
_SYSTEM = "bin boot dev etc home lib lib32 lib64 libx32 media mnt opt proc root run sbin srv sys tmp usr var"

# Runs in a new mount namespace; $1 is an empty folder. What is not part of a plain system is covered, so that a
# guest has no more than a fresh machine would: no home folders, nothing of the work that goes on here.
_MAKE_DISK = f"""set -e
mount -t tmpfs -o mode=755 disk "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o lowerdir=/,upperdir="$1/upper",workdir="$1/work" overlay "$1/root"
cd "$1/root"
for place in *; do
  case " {_SYSTEM} " in *" $place "*) ;; *) if [ -d "$place" ]; then mount -t tmpfs none "$place"; fi ;; esac
done
for place in home root mnt; do mount -t tmpfs -o mode=755 none "$place"; done
mount -t tmpfs -o mode=755 none dev
for node in null zero full random urandom tty; do : > "dev/$node"; mount --bind "/dev/$node" "dev/$node"; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 none dev/shm
ln -s pts/ptmx dev/ptmx; ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin; ln -s /proc/self/fd/1 dev/stdout; ln -s /proc/self/fd/2 dev/stderr
mount -t sysfs -o ro sysfs sys
mount -t proc proc proc
pivot_root . mnt
umount -l /mnt /proc
exec chroot . sh -c 'echo ready; exec cat > /dev/null'
"""

# Runs in a new process namespace on the disk; what lies in /run and /tmp does not outlive the power. The shell stays
# as process 1, which takes in the orphans.
_POWER_ON = """set -e
mount -t tmpfs -o mode=755 none /run
mount -t tmpfs -o mode=1777 none /tmp
mkdir -p /run/sshd /run/lock
/usr/sbin/sshd -D -E /var/log/auth.log < /dev/null &
cat > /dev/null
"""

_SSHD_CONFIG = """ListenAddress {address}
{host_keys}PidFile /run/sshd.pid
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no
UsePAM no
UseDNS no
PrintMotd no
AcceptEnv LANG LC_*
Subsystem sftp internal-sftp
"""


def _given_host_keys(user_data: bytes) -> dict[str, str]:
    """The `ssh_keys` of a cloud-config, as cloud-init reads them; empty where there are none."""
    text = user_data.decode(errors="replace")
    if not text.startswith("#cloud-config"):
        return {}
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    keys = config.get("ssh_keys") if isinstance(config, dict) else None
    return {str(name): str(value) for name, value in keys.items()} if isinstance(keys, dict) else {}


class Guests:
    """Public addresses from 127.66.0.0/16, and no machine behind them."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def new_address(self) -> str:
        """A loopback address that this run has not given out before."""
        while True:
            address = f"127.66.{random.randrange(256)}.{random.randrange(1, 255)}"
            if address not in self._used and self._is_good(address):
                self._used.add(address)
                return address

    def _is_good(self, address: str) -> bool:
        """Nobody will listen there, so it does not matter who does already."""
        return True

    namespace: Path | None = None  # the network namespace of the addresses; None: this machine's own

    def create(self, identity: str, seed: Seed) -> None:
        """Make the disk of an instance."""

    def start(self, identity: str) -> None:
        """Power on."""

    def stop(self, identity: str) -> None:
        """Power off; the disk stays."""

    def remove(self, identity: str) -> None:
        """Power off and forget the disk."""

    def close(self) -> None:
        """Remove every machine."""


@dataclass
class _Machine:
    """One machine."""

    seed: Seed
    folder: Path
    disk: subprocess.Popen[str] | None = None
    power: subprocess.Popen[str] | None = None

    def create(self) -> None:
        """Mount the disk and do what cloud-init does at the first start."""
        self.folder.mkdir(parents=True)
        self.disk = spawn(["unshare", "--mount", "--uts", "sh", "-c", _MAKE_DISK, "sh", str(self.folder)])
        assert self.disk.stdout is not None
        if self.disk.stdout.readline() != "ready\n":
            raise OSError("the disk of a guest could not be mounted; see the messages above, or use --no-ssh")
        root = Path(f"/proc/{self.disk.pid}/root")
        _make_user(root, self.seed)
        _make_host(root, self.seed)

    def start(self) -> None:
        """Start sshd on the disk."""
        assert self.disk is not None
        inside = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"]
        hostname = f"echo '{_host_name(self.seed)}' > /proc/sys/kernel/hostname\n"
        target = f"--target={self.disk.pid}"
        self.power = spawn(["nsenter", target, "--mount", "--uts", *inside, hostname + _POWER_ON])

    def stop(self) -> None:
        """Pull the plug."""
        end(self.power)
        self.power = None

    def remove(self) -> None:
        """Power off and forget the disk."""
        self.stop()
        end(self.disk)
        self.disk = None
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass
class _Worker:
    """What is done to a machine is done by its own thread, in order, so that no request waits for it."""

    machine: "_Machine | Machine"
    thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def do(self, action: Callable[[], None]) -> None:
        """Have something done; what goes wrong is said on stderr."""

        def reporting() -> None:
            try:
                action()
            except Exception as error:
                message = f"oci_emulator: the machine at {self.machine.seed.address} failed: {error}"
                print(message, file=sys.stderr, flush=True)

        self.thread.submit(reporting)


class SshGuests(Guests):
    """Public addresses with a real machine behind each; needs root."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._machines: dict[str, _Worker] = {}

    def create(self, identity: str, seed: Seed) -> None:
        """Make the disk of an instance, in its own time."""
        worker = _Worker(self._machine(seed, self._folder / identity.rpartition(".")[2]))
        self._machines[identity] = worker
        worker.do(worker.machine.create)

    def start(self, identity: str) -> None:
        """Power on."""
        if worker := self._machines.get(identity):
            worker.do(worker.machine.start)

    def stop(self, identity: str) -> None:
        """Power off; the disk stays."""
        if worker := self._machines.get(identity):
            worker.do(worker.machine.stop)

    def remove(self, identity: str) -> None:
        """Power off and forget the disk."""
        if worker := self._machines.pop(identity, None):
            worker.do(worker.machine.remove)
            worker.thread.shutdown(wait=False)

    def close(self) -> None:
        """Remove every machine."""
        workers = list(self._machines.values())
        for identity in list(self._machines):
            self.remove(identity)
        for worker in workers:
            worker.thread.shutdown(wait=True)

    def _is_good(self, address: str) -> bool:
        return _is_free(address)

    def _machine(self, seed: Seed, folder: Path) -> "_Machine | Machine":
        return _Machine(seed, folder)


class HostGuests(SshGuests):
    """Addresses in a network namespace with a test host behind each, whatever image was asked for."""

    def __init__(self, folder: Path, suite: str) -> None:
        super().__init__(folder)
        self._tree = tree(suite, PROXY_URL)
        self.network = Network()
        self.namespace = self.network.namespace

    def new_address(self) -> str:
        """An address that this run has not given out before."""
        return self.network.new_address()

    def close(self) -> None:
        """Remove every machine, and the network."""
        super().close()
        self.network.close()

    def _machine(self, seed: Seed, folder: Path) -> Machine:
        return Machine(self.network, self._tree, folder, seed)


def what_is_missing() -> str:
    """Why real machines cannot be had here, as part of a sentence; empty where they can."""
    if os.geteuid() != 0:
        return "it needs root"
    lacking = [name for name in _NEEDED if shutil.which(name, path=PATH) is None]
    if lacking:
        return f"it needs {', '.join(lacking)} on this machine"
    if not _is_free("127.66.0.1"):
        return (
            "it needs port 22 of 127.66.0.0/16, and an sshd of this machine has it on every address (ListenAddress)"
        )
    command = ["unshare", "--mount", "--pid", "--fork", "true"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"namespaces are not allowed here ({tried.stderr.strip()})" if tried.returncode else ""


def _is_free(address: str) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, 22))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def _host_name(seed: Seed) -> str:
    name = "".join(letter if letter.isalnum() else "-" for letter in seed.hostname.lower()).strip("-")
    return name[:63] or "instance"


def _write(path: Path, text: str, mode: int = 0o644, owner: int = 0) -> None:
    """Write a file of the guest, never through a link of the guest."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)
    os.chown(path, owner, owner)
    path.chmod(mode)


def _make_user(root: Path, seed: Seed) -> None:
    """The login of the image, and no other person; sudo without a password."""
    uid, etc = 1000, root / "etc"
    people = {seed.user}
    for line in (etc / "passwd").read_text().splitlines():
        name, _, number = line.split(":")[:3]
        if 1000 <= int(number) < 60000:
            people.add(name)
    for file, mine in {
        "passwd": f"{seed.user}:x:{uid}:{uid}:{seed.user}:/home/{seed.user}:/bin/bash",
        "shadow": f"{seed.user}:*:20000:0:99999:7:::",  # no password, but not locked: that would refuse keys, too
        "group": f"{seed.user}:x:{uid}:",
    }.items():
        kept = [line for line in (etc / file).read_text().splitlines() if line.split(":")[0] not in people]
        _write(etc / file, "\n".join([*kept, mine, ""]), 0o640 if file == "shadow" else 0o644)
    _write(etc / "sudoers.d" / "90-cloud-init-users", f"{seed.user} ALL=(ALL) NOPASSWD:ALL\n", 0o440)
    home = root / "home" / seed.user
    for folder, mode in ((home, 0o755), (home / ".ssh", 0o700)):
        folder.mkdir(mode=mode)
        os.chown(folder, uid, uid)
    _write(home / ".ssh" / "authorized_keys", seed.authorized_keys.rstrip("\n") + "\n", 0o600, uid)


def _make_host(root: Path, seed: Seed) -> None:
    """Name, host keys and sshd of the machine. Keys that came in the user data suppress all others."""
    ssh, name = root / "etc" / "ssh", _host_name(seed)
    _write(root / "etc" / "hostname", f"{name}\n")
    _write(root / "etc" / "hosts", f"127.0.0.1 localhost\n127.0.1.1 {name}\n")
    for old in ssh.glob("ssh_host_*"):
        old.unlink()
    given = _given_host_keys(seed.user_data)
    kinds = [kind for kind in ("ed25519", "ecdsa", "rsa") if f"{kind}_private" in given]
    for kind in kinds:
        _write(ssh / f"ssh_host_{kind}_key", given[f"{kind}_private"], 0o600)
        _write(ssh / f"ssh_host_{kind}_key.pub", given.get(f"{kind}_public", "") + "\n")
    if not given:
        kinds = ["ed25519", "ecdsa"]
        for kind in kinds:
            key = str(ssh / f"ssh_host_{kind}_key")
            subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", f"root@{name}", "-f", key], check=True)
    keys = "".join(f"HostKey /etc/ssh/ssh_host_{kind}_key\n" for kind in kinds)
    _write(ssh / "sshd_config", _SSHD_CONFIG.format(address=seed.address, host_keys=keys))
