"""A real sshd on loopback, with a line to it that can be slow, cut and counted."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


@dataclass
class Line:
    """A TCP relay in front of sshd. `up` and `down` count bytes; `rate` is a limit in bytes per second, 0: none."""

    server_port: int
    rate: float = 0
    up: int = 0
    down: int = 0
    open: bool = True  # whether new connections are taken
    _listener: socket.socket = field(default_factory=socket.socket)
    _ends: list[socket.socket] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def start(self) -> None:
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(20)
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self) -> None:
        """End all connections."""
        while self._ends:
            with suppress(OSError):
                self._ends.pop().shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if not self.open:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self.server_port))
                self._ends += [near, far]
                for one, other, way in ((near, far, "up"), (far, near, "down")):
                    threading.Thread(target=self._carry, args=(one, other, way), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket, way: str) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                setattr(self, way, getattr(self, way) + len(data))
                if self.rate:
                    time.sleep(len(data) / self.rate)
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@dataclass
class SshHost:
    """The server, as Ansible knows it by `inventory`."""

    folder: Path
    line: Line
    process: subprocess.Popen[bytes]

    @property
    def ssh_options(self) -> list[str]:
        """For ssh and scp."""
        options = [f"Port={self.line.port}", f"IdentityFile={self.folder / 'key'}", "IdentitiesOnly=yes"]
        options += [f"UserKnownHostsFile={self.folder / 'known_hosts'}", "StrictHostKeyChecking=yes", "BatchMode=yes"]
        return [word for option in options for word in ("-o", option)]

    @property
    def inventory(self) -> Path:
        """Host `box`, reached by SSH."""
        path = self.folder / "inventory.yml"
        arguments = " ".join(
            [*self.ssh_options, "-F", "/dev/null", "-o", "ControlPersist=60", "-o", "ControlMaster=auto"]
        )
        arguments += f" -o ControlPath={self.folder}/c"
        path.write_text(
            f"all:\n  hosts:\n    box:\n      ansible_host: 127.0.0.1\n      ansible_port: {self.line.port}\n"
            f"      ansible_ssh_args: {arguments!r}\n      ansible_python_interpreter: /usr/bin/python3\n"
        )
        return path

    def kill_sessions(self) -> int:
        """SIGKILL for sshd's processes of open connections; return how many there were."""
        victims = [pid for pid in below(self.process.pid) if _name(pid).startswith("sshd")]
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(victims)


def below(pid: int) -> list[int]:
    """The processes that one has started, and those that they have."""
    found: list[int] = []
    todo = [pid]
    while todo:
        with suppress(OSError):
            here = todo.pop()
            children = [int(word) for word in Path(f"/proc/{here}/task/{here}/children").read_text().split()]
            found += children
            todo += children
    return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


@contextmanager
def ssh_host(folder: Path) -> Iterator[SshHost]:
    """Start an sshd with keys of its own that lets this very user in; end it with all its sessions."""
    assert SSHD
    for name in ("key", "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "authorized_keys").write_bytes((folder / "key.pub").read_bytes())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    Path("/run/sshd").mkdir(exist_ok=True) if os.geteuid() == 0 else None
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder / 'host_key'}\nPidFile none\nStrictModes no\n"
        f"AuthorizedKeysFile {folder / 'authorized_keys'}\nAuthenticationMethods publickey\nUsePAM no\n"
        "PermitRootLogin prohibit-password\nMaxStartups 100\nSubsystem sftp internal-sftp\n"
    )
    with (folder / "sshd.log").open("w") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd_config"], stdout=log, stderr=log)
    line = Line(port)
    line.start()
    host_key = " ".join((folder / "host_key.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{line.port} {host_key}\n")
    host = SshHost(folder, line, process)
    try:
        end = time.monotonic() + 20
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None and time.monotonic() < end, (folder / "sshd.log").read_text()
            time.sleep(0.05)
        yield host
    finally:
        line.close()
        host.kill_sessions()
        process.terminate()
        process.wait(20)
