"""One host: systemd as process 1 of a container, on an overlay over a tree of Debian, whose changes lie in memory.

It is two processes. The *disk* holds a mount and a network namespace; the *power* is a process namespace in it, with
systemd-nspawn. Both live as long as their standard input is open: when the test goes, however it goes, the kernel
closes the pipes and takes both away, with all they hold.
"""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from .network import PATH, Network, end, spawn
from .sources import debian_mirrors

NEEDED = ("unshare", "nsenter", "mount", "ip", "nc", "ssh", "ssh-keygen", "mmdebstrap", "systemd-nspawn", "apt-get")

# $1: an empty folder for the disk; $2: the tree; $3: the folder with what cloud-init is to find.
_DISK = """set -e
mount -t tmpfs -o mode=755 disk "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o lowerdir="$2",upperdir="$1/upper",workdir="$1/work" overlay "$1/root"
mkdir -p "$1/root/var/lib/cloud/seed"
cp -r "$3" "$1/root/var/lib/cloud/seed/nocloud"
cat "$3/hosts" > "$1/root/etc/hosts"
mkdir -p /run/systemd/nspawn
mount -t tmpfs nspawn /run/systemd/nspawn
echo ready
exec cat > /dev/null
"""

# $1: the disk's folder; $2: the host's name; $3: its number. systemd wants a hierarchy of control groups, and version
# 2 of it, which may stand there already and then cannot be mounted over itself. nspawn exits with 133 when the host
# reboots; the shell stays as process 1, whose end takes all others along.
_POWER = """set -e
mount -t tmpfs none /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
group=/sys/fs/cgroup/testhosts-$3
mkdir -p $group
# A host that was just switched off may still be dying, and holds its disk until then.
for try in $(seq 100); do
  find $group -mindepth 1 -depth -type d -exec rmdir {} + 2> /dev/null && break
  sleep 0.1
done
echo $$ > $group/cgroup.procs
{
  while :; do
    code=0
    SYSTEMD_NSPAWN_API_VFS_WRITABLE=network systemd-nspawn --quiet --settings=no --boot --register=no --keep-unit \
      --machine="$2" --directory="$1/root" --network-namespace-path=/proc/self/ns/net --capability=CAP_NET_ADMIN \
      --resolv-conf=off --timezone=off --link-journal=no --console=pipe < /dev/null || code=$?
    [ $code = 133 ] || break
  done
} &
cat > /dev/null
"""


@dataclass(frozen=True)
class Seed:
    """What a machine learns at its first start: address, login, keys, and the user data that was posted."""

    address: str
    user: str
    hostname: str
    authorized_keys: str
    user_data: bytes

    def files(self) -> dict[str, bytes]:
        """The files of a NoCloud seed, and the host's /etc/hosts."""
        keys = self.authorized_keys.splitlines()
        about = {"instance-id": f"i-{self.address}", "local-hostname": self.hostname, "public-keys": keys}
        login = {"name": self.user, "shell": "/bin/bash", "sudo": "ALL=(ALL) NOPASSWD:ALL", "lock_passwd": True}
        return {
            "meta-data": json.dumps(about).encode(),
            "user-data": self.user_data or b"#cloud-config\n{}\n",
            # The login of the image; what is posted comes over it.
            "vendor-data": b"#cloud-config\n" + json.dumps({"system_info": {"default_user": login}}).encode(),
            "hosts": f"127.0.0.1 localhost\n127.0.1.1 {self.hostname}\n::1 localhost\n".encode(),
        }


@dataclass
class Machine:
    """One host, which is made, switched on and off, and removed."""

    network: Network
    tree: Path
    folder: Path
    seed: Seed
    disk: subprocess.Popen[str] | None = None
    power: subprocess.Popen[str] | None = field(default=None, repr=False)

    def create(self) -> None:
        """Make the disk and plug in the network cable. Raises OSError."""
        seed, place = self.folder / "seed", self.folder / "disk"
        seed.mkdir(parents=True, mode=0o700)
        place.mkdir()
        for name, content in self.seed.files().items():
            (seed / name).write_bytes(content)
            (seed / name).chmod(0o600)  # the user data holds a private key
        words = [str(place), str(self.tree), str(seed)]
        namespaces = ["unshare", "--mount", "--propagation", "private", "--net"]
        self.disk = spawn([*namespaces, "sh", "-c", _DISK, "sh", *words])
        assert self.disk.stdout is not None
        if self.disk.stdout.readline() != "ready\n":
            raise OSError("the disk of a test host could not be mounted; see the message above")
        self.network.plug(self.seed.address, self.disk.pid)

    def start(self) -> None:
        """Power on; what the host says on its console comes into the file console.log."""
        assert self.disk is not None
        namespaces = ["nsenter", f"--target={self.disk.pid}", "--mount", "--net"]
        inside = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", _POWER, "sh"]
        words = [str(self.folder / "disk"), f"host{self.disk.pid}", str(self.disk.pid)]
        with (self.folder / "console.log").open("ab") as console:
            self.power = spawn([*namespaces, *inside, *words], console.fileno())

    def stop(self) -> None:
        """Pull the plug; the disk stays."""
        end(self.power)
        self.power = None

    def remove(self) -> None:
        """Pull the plug and forget the disk."""
        self.stop()
        if self.disk:
            _remove_groups(self.disk.pid)
        end(self.disk)
        self.disk = None
        shutil.rmtree(self.folder, ignore_errors=True)


def what_is_missing() -> str:
    """Why test hosts cannot be had here, as part of a sentence; empty where they can."""
    if os.geteuid() != 0:
        return "test hosts need root"
    lacking = [name for name in NEEDED if shutil.which(name, path=PATH) is None]
    if lacking:
        return f"test hosts need {', '.join(lacking)} on this machine"
    if "main" not in debian_mirrors():
        return "test hosts need the package sources of a Debian on this machine"
    mounts = "mount -t tmpfs none /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup"
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "sh", "-c", mounts]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    return (
        f"test hosts need namespaces, which are not allowed here ({tried.stderr.strip()})" if tried.returncode else ""
    )


def _remove_groups(number: int) -> None:
    """Remove the control groups of a host that is gone, as soon as its last process is."""
    script = """mount -t tmpfs none /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
cd /sys/fs/cgroup
for try in $(seq 50); do
  find "testhosts-$1" -depth -type d -exec rmdir {} + 2> /dev/null && break
  sleep 0.1
done"""
    subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", str(number)], capture_output=True, check=False)
