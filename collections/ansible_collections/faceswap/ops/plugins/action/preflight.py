# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Looks at a host before anything is done there: one round trip, and one sentence for what is wrong with it."""

from __future__ import annotations

import re
import shlex
import time
from typing import Any

from ansible import constants
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

ARGUMENTS: dict[str, dict[str, Any]] = {
    "systems": {"type": "dict", "default": {}},
    "root": {"type": "bool", "default": False},
    "max_clock_skew_s": {"type": "int", "default": 300},
}

OLDEST_PYTHON = (3, 9)  # the oldest of a supported host, and what the supported ansible-core releases take

NAMES = {"debian": "Debian", "ol": "Oracle Linux", "ubuntu": "Ubuntu"}

# What the host tells of itself, a line each. It is the shell's, as Python is one of the things that may be missing.
# "$@": the interpreters to look for, of which Ansible takes the first that there is.
PROBE = r"""
export LC_ALL=C
say() { printf 'preflight %s=%s\n' "$1" "$2"; }
say clock "$(date +%s)"
(. /etc/os-release && say id "$ID" && say version "$VERSION_ID" && say name "$PRETTY_NAME") 2>/dev/null
say machine "$(uname -m)"
say kernel "$(uname -r)"
say user "$(id -un)"
say cores "$(nproc)"
say memory_free_kb "$(sed -n 's/^MemAvailable: *\([0-9]*\) kB$/\1/p' /proc/meminfo)"
if command -v nvidia-smi >/dev/null; then
    free=$(timeout 10 nvidia-smi -i 0 --query-gpu=memory.free --format=csv,noheader,nounits 2>/dev/null)
    say gpu_memory_free_mb "$free"
fi
say nvidia_gpus "$(ls /proc/driver/nvidia/gpus 2>/dev/null | wc -l)"
[ -d /run/systemd/system ] && say systemd yes
for python; do
    found=$(command -v "$python") || continue
    say interpreter "$found"
    say python "$("$found" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)"
    break
done
if [ "$(id -u)" = 0 ]; then
    say root yes
elif said=$(sudo -n true 2>&1); then
    say root yes
else
    say sudo "$(printf '%s' "$said" | tail -n 1)"
fi
"""


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core ships no types
    """Asks the host all at once, and judges what it says."""

    _supports_check_mode = True
    _supports_async = False
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what the host is, or fail with one sentence; `unreachable` where it does not answer."""
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        _, wanted = self.validate_argument_spec(argument_spec=ARGUMENTS)
        host = str(task_vars.get("inventory_hostname", "localhost"))
        # Who gave Ansible a password or another way to root is not asked for sudo without one.
        own_way = self._play_context.become_pass or any(
            task_vars.get(f"ansible_become_{name}") for name in ("password", "pass")
        )
        began = time.time()
        command = shlex.join(["/bin/sh", "-c", PROBE, "preflight", *self._interpreters(task_vars)])
        try:
            answer = self._low_level_execute_command(command, sudoable=False)
        except AnsibleConnectionFailure as error:
            return {"unreachable": True, "msg": why_unreachable(str(error), host, *self._way(host))}
        found = dict(re.findall(r"^preflight (\w+)=(.*?)\r?$", answer["stdout"], re.M))
        if "user" not in found:
            said = last_line(answer["stderr"] + "\n" + answer["stdout"])
            return {
                "failed": True,
                "msg": f"{host} runs no commands for {self._way(host)[1]} ({said}): "
                "give that user a shell there, or set ansible_user to another one.",
            }
        skew = clock_skew(int(found["clock"]), began, time.time())
        objection = (
            wrong_system(host, found, wanted["systems"])
            or wrong_python(host, found)
            or (no_root(host, found) if wanted["root"] and not own_way else None)
            or wrong_clock(host, skew, wanted["max_clock_skew_s"])
        )
        if objection:
            return {"failed": True, "msg": objection}
        return {
            "changed": False,
            "system": {key: found.get(key, "") for key in ("id", "version", "name")},
            "architecture": found["machine"],
            "kernel": found["kernel"],
            "python": found["python"],
            "systemd": "systemd" in found,
            "user": found["user"],
            "cores": number(found, "cores") or 1,
            "memory_free_mb": (number(found, "memory_free_kb") or 0) // 1024,
            "gpu_memory_free_mb": number(found, "gpu_memory_free_mb"),
            "nvidia_gpus": number(found, "nvidia_gpus") or 0,
            "clock_offset_s": skew,
        }

    def _interpreters(self, task_vars: dict[str, Any]) -> list[str]:
        """What Ansible will look for on this host."""
        named = str(self._templar.template(task_vars.get("ansible_python_interpreter") or ""))
        if named and not named.startswith("auto"):
            return [named]
        return [
            str(name)
            for name in constants.config.get_config_value("INTERPRETER_PYTHON_FALLBACK", variables=task_vars)
        ]

    def _way(self, host: str) -> tuple[str, str, str]:
        """Address, user and key file of the connection, each as far as it is set."""

        def option(name: str) -> str:
            return str((self._connection.has_option(name) and self._connection.get_option(name)) or "")

        port = option("port")
        address = (option("host") or host) + (f" port {port}" if port not in ("", "22") else "")
        return address, option("remote_user") or "the login of this name", option("private_key_file")


def last_line(text: str) -> str:
    """Return the last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")


def clock_skew(clock: int, began: float, ended: float) -> int:
    """Return by how many seconds a clock, read at a moment between `began` and `ended`, is ahead of ours.

    As little as these two allow: 0 where the clock may be right. A clock that is behind gives less than 0.
    """
    return round(min(0.0, clock + 1 - began) + max(0.0, clock - ended))


def number(found: dict[str, str], key: str) -> int | None:
    """Return a number that the host told; None where it told none."""
    return int(found[key]) if re.fullmatch(r"\d+", found.get(key, "")) else None


def wrong_system(host: str, found: dict[str, str], systems: dict[str, list[str]]) -> str | None:
    """Return what is wrong with the host's operating system; `systems` maps its ID to versions, empty is any."""
    version = found.get("version", "")
    for one in systems.get(found.get("id", ""), []):
        if version == str(one) or version.startswith(f"{one}."):
            return None
    if not systems:
        return None
    listed = [f"{NAMES.get(name, name)} {' and '.join(map(str, versions))}" for name, versions in systems.items()]
    return (
        f"{host} runs {found.get('name') or 'an unknown system'}, which is not supported: "
        f"use a host with {', '.join(listed[:-1])}{' or ' if listed[1:] else ''}{listed[-1]}."
    )


def wrong_python(host: str, found: dict[str, str]) -> str | None:
    """Return what is wrong with the Python that Ansible would take there."""
    path, version = found.get("interpreter"), found.get("python", "")
    if not path:
        return (
            f"{host} has no Python, which Ansible needs there: install its system's own "
            "(the package python3), or set ansible_python_interpreter."
        )
    if not version:
        return f"{path} on {host} does not run: repair it, or set ansible_python_interpreter to a Python that does."
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_PYTHON:
        return (
            f"{path} on {host} is Python {version}, and Ansible needs {'.'.join(map(str, OLDEST_PYTHON))} or newer "
            "there: set ansible_python_interpreter to such a one."
        )
    return None


def no_root(host: str, found: dict[str, str]) -> str | None:
    """Return why nothing can be done as root."""
    if "root" in found:
        return None
    said = found.get("sudo", "").removeprefix("sudo: ").rpartition(": sudo: ")[2].rstrip(". ")
    return (
        f"{found['user']} cannot become root on {host} without a password ({said}): give that user a sudoers entry "
        "with NOPASSWD there, set ansible_user to one who has it, or add --ask-become-pass."
    )


def wrong_clock(host: str, skew: int, limit: int) -> str | None:
    """Return what is wrong with the host's clock; both numbers are seconds."""
    if abs(skew) <= limit:
        return None
    minutes = f"{abs(skew) // 60} minutes" if abs(skew) < 7200 else f"{abs(skew) // 3600} hours"
    return (
        f"The clock of {host} is {minutes} {'ahead of' if skew > 0 else 'behind'} this machine's, so that "
        "certificates and signatures fail: switch time synchronisation on where it is wrong "
        "(sudo timedatectl set-ntp true)."
    )


def why_unreachable(said: str, host: str, address: str, user: str, key: str) -> str:
    """Return one sentence for what SSH said; `key` is the file of the login key, or empty."""
    where = f"{host} at {address}" if address != host else host
    if "HOST IDENTIFICATION HAS CHANGED" in said:
        pin = re.search(r"Offending .*key in (.+):(\d+)", said)
        line = f"line {pin[2]} of {pin[1]}" if pin else "the known_hosts file"
        return (
            f"{where} shows another host key than the one pinned in {line}, so nothing was sent there: it is not the "
            "host of before, or it was rebuilt; only if you know that it was, replace that line by its new key."
        )
    if "Host key verification failed" in said:
        return (
            f"The host key of {where} is not known here, so nothing was sent there: compare its fingerprint in a "
            "login by hand (ssh), which pins it, then run the same again."
        )
    if "Permission denied" in said or "Too many authentication failures" in said:
        which = f" with the key {key}" if key else ""
        detail = re.search(r"Permission denied \([^)]*\)|Too many authentication failures", said)
        remedy = "set ansible_user to the host's login, and ansible_ssh_private_key_file to a key that it accepts"
        if key and (
            re.search(rf"no such identity: {re.escape(key)}|{re.escape(key)}.*(No such file|not accessible)", said)
        ):
            remedy = "that file is not there: bring it, or set ansible_ssh_private_key_file to another one"
        elif "UNPROTECTED PRIVATE KEY FILE" in said:
            remedy = f"others may read that key, so SSH does not use it: chmod 600 {key}"
        return f"{where} does not let {user} in{which} ({detail[0] if detail else 'Permission denied'}): {remedy}."
    for pattern, cause, remedy in _NO_WAY:
        if re.search(pattern, said, re.I):
            return f"{where} cannot be reached ({cause}): {remedy}."
    return f"{where} cannot be reached ({last_line(said).rstrip('.')}): mend that, then run the same again."


_NO_WAY = (
    ("Could not resolve hostname", "no such name", "check ansible_host"),
    (
        "Connection refused",
        "connection refused",
        "it may be booting, or runs no SSH on that port: wait and try again",
    ),
    (
        "timed out|Timeout",
        "no answer in time",
        "see that it runs, and that its firewall lets this machine in (its address may have changed)",
    ),
    (
        "No route to host|Network is unreachable",
        "no route",
        "see that it runs, check ansible_host and this network",
    ),
    (
        "Connection closed|Connection reset|kex_exchange_identification|broken pipe",
        "it closed the connection",
        "it may be booting or going down: wait and try again",
    ),
)
