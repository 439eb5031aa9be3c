"""A network of the tests' own: a bridge in a network namespace, without a route to anywhere.

The namespace belongs to a process that lives as long as its standard input is open: nothing outlives the test.
"""

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from .proxy import PackageProxy
from .sources import package_hosts

PREFIX = "198.51.100."  # TEST-NET-2 of RFC 5737: addresses that are nobody's
CONTROLLER = PREFIX + "1"
PROXY_PORT = 3128
PROXY_URL = f"http://{CONTROLLER}:{PROXY_PORT}"

_BRIDGE = f"""set -e
ip link set lo up
ip link add hosts type bridge
ip addr add {CONTROLLER}/24 dev hosts
ip link set hosts up
echo ready
exec cat > /dev/null
"""
_CLONE_NEWNET = 0x40000000

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # where root finds its programs

T = TypeVar("T")


def spawn(command: list[str], output: int | None = subprocess.PIPE) -> subprocess.Popen[str]:
    """Start a process that ends when its standard input is closed; it says `ready` when it is."""
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=output, stderr=None if output == subprocess.PIPE else output,
        text=True, env={"PATH": PATH, "LC_ALL": "C.UTF-8"}, cwd="/", start_new_session=True,
    )  # fmt: skip


def end(process: subprocess.Popen[str] | None) -> None:
    """Kill a process that was spawned, and what hangs on it."""
    if process is None:
        return
    process.kill()
    for stream in (process.stdin, process.stdout):
        if stream:
            stream.close()
    process.wait()


class Network:
    """The bridge, the addresses on it, and the proxy by which hosts get packages."""

    def __init__(self) -> None:
        self._last = 9
        self._holder = spawn(["unshare", "--net", "sh", "-c", _BRIDGE])
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            raise OSError("no network namespace could be made; see the message above")
        self.proxy = PackageProxy(inside(self.namespace, _listen), package_hosts())

    @property
    def number(self) -> int:
        """A number that no other network has now."""
        return self._holder.pid

    @property
    def namespace(self) -> Path:
        """The namespace, for `nsenter --net=`."""
        return Path(f"/proc/{self._holder.pid}/ns/net")

    def new_address(self) -> str:
        """An address that no host of this network has had."""
        self._last += 1
        if self._last > 254:
            raise OSError("a network of test hosts has 245 addresses, and all were used")
        return f"{PREFIX}{self._last}"

    def plug(self, address: str, process: int) -> None:
        """Connect the network namespace of a process, under an address."""
        outside = link(address)
        self.ip("link", "add", outside, "type", "veth", "peer", "name", "host0", "netns", str(process))
        self.ip("link", "set", outside, "master", "hosts", "up")
        for words in (
            f"addr add {address}/24 dev host0",
            "link set host0 up",
            "link set lo up",
            f"route add default via {CONTROLLER}",
        ):
            _run("nsenter", f"--net=/proc/{process}/ns/net", "ip", *words.split())

    def cut(self, address: str) -> None:
        """Pull the cable of a host."""
        self.ip("link", "set", link(address), "down")

    def mend(self, address: str) -> None:
        """Put the cable back."""
        self.ip("link", "set", link(address), "up")

    def ip(self, *words: str) -> None:
        """Run `ip` in the namespace."""
        _run("nsenter", f"--net={self.namespace}", "ip", *words)

    def close(self) -> None:
        """Remove it all."""
        self.proxy.close()
        end(self._holder)


def inside(namespace: Path, make: Callable[[], T]) -> T:
    """Call `make` in a network namespace: a socket that it makes stays there, wherever it is used later.

    Raises what `make` raises, and OSError where the namespace is gone or may not be entered.
    """
    made: list[T] = []
    faults: list[BaseException] = []

    def enter() -> None:
        try:
            descriptor = os.open(namespace, os.O_RDONLY)
            try:
                if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "the network namespace cannot be entered")
            finally:
                os.close(descriptor)
            made.append(make())
        except BaseException as fault:
            faults.append(fault)

    thread = threading.Thread(target=enter)  # a namespace is a thread's own, and ends with it
    thread.start()
    thread.join()
    if faults:
        raise faults[0]
    return made[0]


def link(address: str) -> str:
    """Name of a host's cable at the bridge."""
    return f"to{address.rpartition('.')[2]}"


def _listen() -> socket.socket:
    return socket.create_server((CONTROLLER, PROXY_PORT), backlog=64)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
