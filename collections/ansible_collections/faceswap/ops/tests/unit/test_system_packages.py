"""`system_packages` as Ansible runs it, on a host whose package managers are doubles that write down their calls."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.faceswap.ops.plugins.modules import system_packages

COLLECTIONS = Path(system_packages.__file__).parents[5]

PROGRAM = f"""
import sys; sys.path.insert(0, {str(COLLECTIONS)!r})
import json, os
from ansible.module_utils.testing import patch_module_args
from ansible_collections.faceswap.ops.plugins.modules import system_packages
given = json.load(sys.stdin)
uid = given.pop("uid", 0)
os.geteuid = lambda: uid
system_packages.POLL_S = 0.1
with patch_module_args(given):
    system_packages.main()
"""

# `state` holds the names of the packages that are there, a line each.
DOUBLES = {
    "dpkg-query": """
for name in "$@"; do
    [ "$name" = half ] && echo 'half half-configured' || { grep -qx "$name" "$here/state" && echo "$name installed"; }
done
""",
    "dpkg": 'rm "$here/interrupted"',
    "apt-get": """
for last; do :; done
no() { echo "$1" >&2; exit 100; }
[ -s "$here/locked" ] && sed -i 1d "$here/locked" && no "E: Could not get lock /var/lib/dpkg/lock-frontend."
[ -e "$here/interrupted" ] && no "E: dpkg was interrupted, you must manually run 'dpkg --configure -a'"
if [ -e "$here/offline" ]; then
    [ "$last" = update ] && no "W: Failed to fetch mirror/dists  Could not connect to mirror."
    no "E: Unable to locate package $last"
fi
[ "$last" = update ] || echo "$last" >> "$here/state"
""",
    "rpm": 'for last; do :; done; grep -qx "$last" "$here/state"',
    "dnf": """
for last; do :; done
[ -s "$here/locked" ] && sed -i 1d "$here/locked" && exit 200
[ -e "$here/offline" ] && { echo 'Error: Failed to download metadata for repo: no repomd.xml' >&2; exit 1; }
echo "$last" >> "$here/state"
""",
    "cloud-init": '[ -e "$here/booting" ] && /bin/sleep 30; exit 2',
}


class Host:
    """Programs of its own and nothing else in the path."""

    def __init__(self, folder: Path, *programs: str) -> None:
        self.folder = folder
        for name in programs:
            path = folder / name
            path.write_text(
                f'#!/bin/sh\nPATH=/usr/bin:/bin here={folder}\necho "{name} $*" >> "$here/calls"\n{DOUBLES[name]}\n'
            )
            path.chmod(0o755)
        (folder / "timeout").symlink_to(str(shutil.which("timeout")))
        (folder / "state").touch()

    def play(self, *names: str, **values: Any) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            input=json.dumps({"names": names, **values}),
            env={"PATH": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "Traceback" not in done.stderr, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def calls(self, name: str) -> list[str]:
        written = self.folder / "calls"
        return (
            [line for line in written.read_text().splitlines() if line.split()[0] == name] if written.exists() else []
        )


@pytest.fixture(params=["apt", "dnf"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    managers = {"apt": ("apt-get", "dpkg-query", "dpkg"), "dnf": ("dnf", "rpm")}
    return Host(tmp_path, "cloud-init", *managers[request.param])


@pytest.fixture
def debian(tmp_path: Path) -> Host:
    return Host(tmp_path, "cloud-init", "apt-get", "dpkg-query", "dpkg")


def test_what_is_missing_is_installed_once_cloud_init_is_done(host: Host) -> None:
    check = host.play("venv", _ansible_check_mode=True)
    assert check["changed"] and not host.calls("cloud-init")
    made = host.play("venv", _ansible_diff=True)
    assert made["changed"] and made["installed"] == ["venv"] and made["diff"] == {"prepared": "+ venv\n"}
    assert len(host.calls("cloud-init")) == 1


def test_a_repository_that_is_off_counts_where_it_is_asked_for(host: Host) -> None:
    host.play("venv", enable_repositories=["epel"])
    assert all("--enablerepo=epel install venv" in call for call in host.calls("dnf"))
    assert not any("epel" in call for call in host.calls("apt-get"))


def test_what_is_there_is_left_alone_and_nothing_is_asked(host: Host) -> None:
    (host.folder / "state").write_text("venv\n")
    assert not host.play("venv", uid=1000)["changed"]
    assert not host.calls("cloud-init") + host.calls("apt-get") + host.calls("dnf")


def test_a_package_that_is_half_there_is_missing(debian: Host) -> None:
    assert debian.play("half")["installed"] == ["half"]


def test_a_lock_is_waited_for(host: Host) -> None:
    (host.folder / "locked").write_text("a call\nanother\na third\n")
    assert host.play("venv")["changed"]


def test_a_lock_that_stays_is_told(host: Host) -> None:
    (host.folder / "locked").write_text("a call\nanother\na third\n")
    told = host.play("venv", wait_s=-1)
    assert told["failed"] and told["msg"].startswith("Another program has been installing packages on this host for")


def test_an_installation_that_was_killed_is_brought_to_its_end(debian: Host) -> None:
    (debian.folder / "interrupted").touch()
    assert debian.play("venv")["changed"]
    assert debian.calls("dpkg") == ["dpkg --configure -a"]


def test_no_way_to_the_packages(host: Host) -> None:
    (host.folder / "offline").touch()
    told = host.play("venv")
    assert told["failed"] and "\n" not in told["msg"]
    cause = (
        "Failed to fetch mirror/dists  Could not connect to mirror"
        if host.calls("apt-get")
        else "Failed to download metadata"
    )
    assert told["msg"].startswith(f"The system's packages venv could not be installed ({cause}")
    assert "network, DNS, proxy" in told["msg"]
    (host.folder / "offline").unlink()
    assert host.play("venv")["changed"]


def test_a_first_boot_that_never_ends_is_told(host: Host) -> None:
    (host.folder / "booting").touch()
    told = host.play("venv", wait_s=1)
    assert told["failed"] and told["msg"].startswith("cloud-init is still at work on this host after 1 s")


def test_who_is_not_root_is_told(host: Host) -> None:
    told = host.play("venv", uid=1000)
    assert told["failed"] and told["msg"].startswith("Only root can install venv")


def test_a_host_with_neither_is_told(tmp_path: Path) -> None:
    told = Host(tmp_path).play("venv")
    assert told["failed"] and "neither apt-get nor dnf" in told["msg"]
