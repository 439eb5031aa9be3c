"""The look at a host before work: a sentence for each thing that can be wrong, and one round trip."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.faceswap.ops.plugins.action import preflight

COLLECTIONS = Path(__file__).parents[5]
SYSTEMS = {"ubuntu": ["24.04"], "ol": ["9"], "debian": ["12", "13"]}


class Host:
    """A host behind doubles: `ssh` runs the command here, and first in its path lie the test's own programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = folder / "programs"
        self.programs.mkdir()
        self.calls = folder / "calls"
        # ssh's arguments end with the host and its command.
        self.program(
            "ssh",
            f'echo call >> {self.calls}; for last; do :; done\nPATH={self.programs}:$PATH; export PATH; eval "$last"',
        )

    def program(self, name: str, script: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def look(self, arguments: dict[str, Any] | None = None, *words: str, **variables: Any) -> tuple[int, str, Any]:
        """Exit code, output, and the task's result of a play with the action."""
        way = {
            "connection": "ssh",
            "ssh_executable": str(self.programs / "ssh"),
            "host": "198.51.100.7",
            "user": "op",
        }
        hosts = {"studio": {f"ansible_{name}": value for name, value in way.items()}}
        hosts["studio"] |= {"ansible_python_interpreter": sys.executable, **variables}
        task = {"name": "Look", "faceswap.ops.preflight": arguments or {}, "register": "told"}
        show = {"name": "Show", "ansible.builtin.debug": {"var": "told"}}
        play = {"hosts": "studio", "gather_facts": False, "tasks": [task, show]}
        (self.folder / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
        (self.folder / "play.yml").write_text(json.dumps([play]))
        done = subprocess.run(
            [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "hosts.json", "play.yml", *words],
            env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_NOCOLOR": "1"},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "Traceback" not in done.stdout + done.stderr
        shown = json.loads(done.stdout[done.stdout.index("{") : done.stdout.rindex("}") + 1])
        return done.returncode, done.stdout + done.stderr, shown.get("told", shown)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_it_tells_what_the_host_is_in_one_round_trip(host: Host) -> None:
    code, output, told = host.look()
    assert code == 0, output
    assert told["changed"] is False and told["clock_offset_s"] == 0
    assert told["architecture"] == os.uname().machine and told["kernel"] == os.uname().release
    assert told["python"] == ".".join(map(str, sys.version_info[:3]))
    assert told["systemd"] is Path("/run/systemd/system").is_dir()
    assert told["cores"] == len(os.sched_getaffinity(0))
    assert 0 < told["memory_free_mb"] < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    assert shutil.which("nvidia-smi") or told["gpu_memory_free_mb"] is None
    assert told["nvidia_gpus"] == len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    assert told["system"]["id"] in Path("/etc/os-release").read_text()
    assert host.calls.read_text().split() == ["call"]


def test_the_gpus_that_nvidias_driver_has(host: Host) -> None:
    host.program("ls", '[ "$*" = /proc/driver/nvidia/gpus ] && printf "0000:01:00.0\\n0000:02:00.0\\n"')
    assert host.look()[2]["nvidia_gpus"] == 2


@pytest.mark.parametrize("words", [(), ("--check",)])
def test_a_clock_that_is_wrong(host: Host, words: tuple[str, ...]) -> None:
    host.program("date", "expr $(/bin/date +%s) - 1000")
    code, output, told = host.look({}, *words)
    assert code == 2 and told["msg"].startswith("The clock of studio is 16 minutes behind this machine's"), output
    assert "time synchronisation" in told["msg"]
    assert host.look({"max_clock_skew_s": 1010})[0] == 0


def test_root_without_a_password(host: Host) -> None:
    host.program("id", '[ "$1" = -u ] && echo 1000 || echo op')
    host.program("sudo", 'echo "sudo: a password is required" >&2; exit 1')
    code, output, told = host.look({"root": True})
    assert code == 2, output
    assert told["msg"].startswith("op cannot become root on studio without a password (a password is required): ")
    assert host.look({"root": False})[0] == 0
    assert host.look({"root": True}, ansible_become_password="secret")[0] == 0
    host.program("sudo", '[ "$*" = "-n true" ]')
    assert host.look({"root": True})[0] == 0


def test_an_unsupported_system(host: Host) -> None:
    code, output, told = host.look({"systems": {"plan9": ["4"]}})
    assert code == 2 and "is not supported: use a host with plan9 4." in told["msg"], output


def test_a_host_without_python(host: Host) -> None:
    code, output, told = host.look(ansible_python_interpreter="/nowhere/python3")
    assert code == 2 and told["msg"].startswith("studio has no Python, which Ansible needs there"), output
    host.program("shim", "exit 1")
    code, output, told = host.look(ansible_python_interpreter=str(host.programs / "shim"))
    assert code == 2 and "does not run: repair it, or set ansible_python_interpreter" in told["msg"], output


def test_the_interpreter_that_ansible_would_discover(host: Host) -> None:
    code, output, told = host.look(
        ansible_python_interpreter="auto_silent", ansible_interpreter_python_fallback=["sh"]
    )
    assert code == 2 and "/sh on studio does not run" in told["msg"], output


def test_a_login_without_a_shell(host: Host) -> None:
    host.program("ssh", "echo This account is currently not available.; exit 1")
    code, output, told = host.look()
    assert code == 2, output
    assert told["msg"].startswith("studio runs no commands for op (This account is currently not available.): ")


CHANGED = """@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Someone could be eavesdropping on you right now (man-in-the-middle attack)!
It is also possible that a host key has just been changed.
Add correct host key in /home/me/known_hosts to get rid of this message.
Offending ED25519 key in /home/me/known_hosts:3
Host key for 198.51.100.7 has changed and you have requested strict checking.
Host key verification failed."""

UNKNOWN = """No ED25519 host key is known for 198.51.100.7 and you have requested strict checking.
Host key verification failed."""

WAYS = {
    CHANGED: ["another host key than the one pinned in line 3 of /home/me/known_hosts", "nothing was sent"],
    UNKNOWN: ["The host key of studio at 198.51.100.7 is not known here", "fingerprint"],
    "op@198.51.100.7: Permission denied (publickey,password).": [
        "studio at 198.51.100.7 does not let op in with the key /keys/mine (Permission denied (publickey,password))",
        "set ansible_user to the host's login",
    ],
    "no such identity: /keys/mine: No such file or directory\nop@198.51.100.7: Permission denied (publickey).": [
        "(Permission denied (publickey)): that file is not there",
    ],
    "ssh: connect to host 198.51.100.7 port 22: Connection refused": ["(connection refused)", "booting"],
    "ssh: connect to host 198.51.100.7 port 22: Connection timed out": ["(no answer in time)", "firewall"],
    "ssh: connect to host 198.51.100.7 port 22: No route to host": ["(no route)"],
    "ssh: Could not resolve hostname studio.invalid: Name or service not known": [
        "(no such name): check ansible_host"
    ],
    "kex_exchange_identification: read: Connection reset by peer": ["it closed the connection"],
    "Bad configuration option: nonsense": ["(Bad configuration option: nonsense): mend that"],
}


@pytest.mark.parametrize("said", WAYS)
def test_what_ssh_says_becomes_one_sentence(said: str) -> None:
    sentence = preflight.why_unreachable(said, "studio", "198.51.100.7", "op", "/keys/mine")
    assert "\n" not in sentence and sentence.endswith(".")
    for words in WAYS[said]:
        assert words in sentence


def test_a_host_that_does_not_answer_is_unreachable(host: Host) -> None:
    (host.folder / "said").write_text(CHANGED + "\n")
    host.program("ssh", f"cat {host.folder}/said >&2; exit 255")
    code, output, told = host.look()
    assert code == 4 and "UNREACHABLE!" in output and "@@@" not in output
    assert told["unreachable"] is True
    assert told["msg"] == preflight.why_unreachable(CHANGED, "studio", "198.51.100.7", "op", "")


def test_a_closed_port_by_the_real_ssh(host: Host) -> None:
    code, _, told = host.look(ansible_ssh_executable="ssh", ansible_host="127.0.0.1", ansible_port=1)
    assert code == 4
    assert told["msg"].startswith("studio at 127.0.0.1 port 1 cannot be reached (connection refused): ")


@pytest.mark.parametrize(
    ("system", "version", "fits"),
    [
        ("debian", "12", True),
        ("debian", "13", True),
        ("debian", "11", False),
        ("debian", "", False),
        ("debian", "120", False),
        ("ubuntu", "24.04", True),
        ("ubuntu", "24.10", False),
        ("ubuntu", "22.04", False),
        ("ol", "9.4", True),
        ("ol", "9", True),
        ("ol", "8.10", False),
        ("fedora", "9", False),
        ("", "", False),
    ],
)
def test_systems(system: str, version: str, fits: bool) -> None:
    found = {"id": system, "version": version, "name": f"{system} {version}".strip()}
    said = preflight.wrong_system("studio", found, SYSTEMS)
    assert (said is None) is fits
    assert preflight.wrong_system("studio", found, {}) is None
    if said:
        assert said.endswith("use a host with Ubuntu 24.04, Oracle Linux 9 or Debian 12 and 13.")
        assert said.startswith(f"studio runs {found['name'] or 'an unknown system'}, which")


@pytest.mark.parametrize(
    ("clock", "skew"), [(1000, 0), (1004, 0), (999, 0), (998, -1), (1006, 1), (1305, 300), (1400, 395), (400, -599)]
)
def test_the_skew_counts_from_what_the_round_trip_leaves_open(clock: int, skew: int) -> None:
    assert preflight.clock_skew(clock, 1000.0, 1005.0) == skew


def test_an_old_python() -> None:
    said = preflight.wrong_python("studio", {"interpreter": "/usr/bin/python3", "python": "3.6.8"})
    assert said and said.startswith(
        "/usr/bin/python3 on studio is Python 3.6.8, and Ansible needs 3.9 or newer there"
    )
    assert preflight.wrong_python("studio", {"interpreter": "/usr/bin/python3", "python": "3.10.1"}) is None
