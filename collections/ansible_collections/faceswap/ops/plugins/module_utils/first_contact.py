# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""SSH to a new machine, trusted from the first byte.

The controller makes the host key and cloud-init installs it, so the first connection is already checked. But
who may read the instance's user data may read that key: so it is replaced in that very connection by one that
never leaves the machine. At every moment the controller's pin holds each key that the machine may show.
"""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from ansible_collections.faceswap.ops.plugins.module_utils.private_files import make_folder, sync_folder, write_file

USER_DATA_LIMIT = 16 * 1024  # bytes of base64: more is refused by Oracle (Compute, 'user_data')
_OURS = ("ssh_keys", "ssh_deletekeys", "ssh_genkeytypes")  # of cloud-init's cc_ssh module
_LOGIN_GRACE_S = 60  # a login that is refused may only not be made yet: cloud-init is at work

# Makes the next key, if it is not there yet; its private half is renamed last, so that it stands for the pair.
_PREPARE = """\
set -eu
umask 077
cd /etc/ssh
next=faceswap_next_ed25519_key
if ! ssh-keygen -y -f $next >/dev/null 2>&1; then
    rm -f $next $next.new $next.new.pub
    ssh-keygen -q -t ed25519 -N '' -C '' -f $next.new
    mv -f $next.new.pub $next.pub
    mv -f $next.new $next
    sync
fi
echo "faceswap-next $(ssh-keygen -y -f $next | cut -d' ' -f2)"
"""

# Puts the next key into its place, lets sshd read it and says which key it is. A listener that systemd gave its
# socket (Ubuntu 24.04) is restarted, for it may lose that socket on SIGHUP; sessions outlive that. Any other is
# the listener above this very session. An sshd that is started for each connection reads its keys each time.
_SWITCH = """\
set -eu
cd /etc/ssh
next=faceswap_next_ed25519_key
if [ -e $next ]; then
    [ ! -e $next.pub ] || chmod 644 $next.pub
    [ ! -e $next.pub ] || mv -f $next.pub ssh_host_ed25519_key.pub
    mv -f $next ssh_host_ed25519_key
    sync
    [ ! -x /usr/sbin/restorecon ] || /usr/sbin/restorecon ssh_host_ed25519_key ssh_host_ed25519_key.pub
fi
pid=$$
if systemctl --quiet is-active ssh.socket 2>/dev/null; then
    systemctl restart ssh.service
    pid=0
fi
while [ "$pid" -gt 0 ]; do
    if tr '\\0' ' ' </proc/$pid/cmdline | grep -qF '[listener]'; then
        kill -HUP "$pid"
        break
    fi
    pid=$(sed -n 's/^PPid:[[:space:]]*//p' /proc/$pid/status)
done
echo "faceswap-switched $(ssh-keygen -y -f ssh_host_ed25519_key | cut -d' ' -f2)"
"""


class ContactError(Exception):
    """One sentence for the user: why the machine cannot be trusted or reached."""


def public_key(text: str) -> str:
    """The base64 field of a public key line; ValueError when it is no OpenSSH public key."""
    fields = text.split()
    if len(fields) < 2 or not fields[0].startswith(("ssh-", "ecdsa-", "sk-")):
        raise ValueError("no OpenSSH public key")
    base64.b64decode(fields[1], validate=True)
    return fields[1]


def make_key(path: Path, comment: str) -> str:
    """Make an ed25519 key pair at `path` and `path`.pub unless it is there, and return the public line.

    The private half gets its name last: where it is, the pair is whole.
    """
    public = path.with_name(f"{path.name}.pub")
    if not path.exists():
        make_folder(path.parent)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".key.") as folder:
            made = Path(folder, "key")
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(made)],
                check=True,
                capture_output=True,
                stdin=subprocess.DEVNULL,
            )
            made.with_name("key.pub").replace(public)
            made.replace(path)
        sync_folder(path.parent)
    elif not public.exists():
        line = subprocess.run(
            ["ssh-keygen", "-y", "-f", str(path)], check=True, capture_output=True, text=True
        ).stdout
        write_file(public, f"{line.strip()} {comment}\n")
    return public.read_text(encoding="utf-8").strip()


def missing_program() -> str | None:
    """The program of OpenSSH that this controller lacks, if any."""
    return next((name for name in ("ssh", "ssh-keygen") if shutil.which(name) is None), None)


def user_data(private_key: str, public_line: str, cloud_config: Mapping[str, Any]) -> str:
    """The user data (base64 of a cloud-config) that installs this host key; ValueError when that cannot be.

    Source: cloud-init's module reference, 'SSH' (ssh_keys, ssh_deletekeys). JSON is YAML.
    """
    if taken := [name for name in _OURS if name in cloud_config]:
        raise ValueError(f"cloud_config must leave {taken[0]} alone: the host key is made here")
    config = {
        **cloud_config,
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": private_key, "ed25519_public": public_line},
    }
    text = base64.b64encode(f"#cloud-config\n{json.dumps(config)}\n".encode()).decode()
    if len(text) > USER_DATA_LIMIT:
        raise ValueError(
            f"the user data has {len(text)} bytes with cloud_config in it, and Oracle takes {USER_DATA_LIMIT}: "
            "make cloud_config shorter, or let Ansible do that part after the launch"
        )
    return text


class Contact:
    """The way to one machine. `options` are ssh's own, with the pin among them; `deadline` is monotonic time.

    `check_alive` is called now and then while nothing answers, and raises where nothing ever will.
    """

    def __init__(
        self, user: str, address: str, options: list[str], deadline: float, check_alive: Callable[[], None]
    ) -> None:
        self._target = f"{user}@{address}"
        self._address = address
        self._command = ["ssh", "-T", *options, "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]
        self._command += ["-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3", "-o", "ControlMaster=no"]
        self._command += ["-o", "ControlPath=none", "-o", "LogLevel=ERROR"]
        self._deadline = deadline
        self._check_alive = check_alive

    def rotate(self, publish: Callable[[str], None]) -> None:
        """Replace the host key in one connection.

        `publish` is called with the next public key (base64) before the machine shows it, and must have
        pinned it when it returns. Raises ContactError.
        """

        def talk(into: IO[str], out: IO[str]) -> None:
            into.write(_PREPARE)
            into.flush()
            publish(_said(out, "faceswap-next"))
            into.write(_SWITCH)
            into.close()
            _said(out, "faceswap-switched")

        self._session(talk)

    def finish(self) -> str:
        """Let the machine show the key that was made for it; for a rotation that was interrupted.

        Returns the public key (base64) that it shows now, which is the old one where the next was lost.
        """
        shown = ""

        def talk(into: IO[str], out: IO[str]) -> None:
            nonlocal shown
            into.write(_SWITCH)
            into.close()
            shown = _said(out, "faceswap-switched")

        self._session(talk)
        return shown

    def check(self) -> None:
        """Connect once, just after a rotation: whoever answers has the pinned key. Raises ContactError."""

        def talk(into: IO[str], out: IO[str]) -> None:
            into.write("echo faceswap-here\n")
            into.close()
            _said(out, "faceswap-here")

        self._session(talk, settling_s=10)

    def _session(self, talk: Callable[[IO[str], IO[str]], None], settling_s: float = 0) -> None:
        """Run a root shell on the machine as soon as that is possible, and let `talk` speak with it.

        For `settling_s` seconds another key than the pinned one is only a listener that has yet to read it.
        """
        refused_since: float | None = None
        settled = time.monotonic() + settling_s
        while True:
            self._wait_for_port()
            with (
                tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
                subprocess.Popen(
                    [*self._command, "--", self._target, "sudo", "-n", "sh", "-s"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    errors="replace",
                ) as shell,
            ):
                assert shell.stdin and shell.stdout
                limit = threading.Timer(max(self._deadline - time.monotonic(), 30), shell.kill)
                limit.daemon = True
                limit.start()
                try:
                    talk(shell.stdin, shell.stdout)
                    return
                except (BrokenPipeError, EOFError):
                    shell.stdin = None  # broken: closing it would only raise again
                    code = shell.wait()
                finally:
                    limit.cancel()
                    shell.stdout.close()
                    shell.kill()
                errors.seek(0)
                said = " ".join(errors.read().split())
            now = time.monotonic()
            other_key = "Host key verification failed" in said or "IDENTIFICATION HAS CHANGED" in said
            if other_key and now >= settled:
                raise ContactError(
                    f"The machine at {self._address} shows another host key than the one it was given: do not "
                    "connect to it; it may be another machine. Destroy the stack and make it again."
                )
            refused = "Permission denied" in said
            refused_since = (refused_since or now) if refused else None
            if now >= self._deadline or (refused_since is not None and now - refused_since > _LOGIN_GRACE_S):
                remedy = "use the login key that it was made with" if refused else "look at the instance's console"
                raise ContactError(f"No root shell at {self._target} by SSH ({said.rstrip('.') or code}): {remedy}.")
            if code != 255:  # the shell itself failed: another try ends the same way
                raise ContactError(f"The first contact with {self._target} failed there: {said or f'exit {code}'}.")
            time.sleep(0.2)

    def _wait_for_port(self) -> None:
        wait = 0.05
        while True:
            try:
                socket.create_connection((self._address, 22), timeout=5).close()
                return
            except OSError as error:
                if wait > 1:  # it was not just booting
                    self._check_alive()
                if time.monotonic() >= self._deadline:
                    raise ContactError(
                        f"Nothing answers at {self._address} port 22 ({error.strerror or error}): look at the "
                        "instance's console, and whether this controller's address is still the one that may enter."
                    ) from None
            time.sleep(wait)
            wait = min(2 * wait, 2.0)


def _said(out: IO[str], word: str) -> str:
    """The rest of the line that begins with `word`; what a login script prints before it is passed over."""
    for line in out:
        first, _, rest = line.strip().partition(" ")
        if first == word:
            return rest
    raise EOFError(word)
