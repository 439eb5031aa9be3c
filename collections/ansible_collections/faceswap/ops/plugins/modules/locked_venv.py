#!/usr/bin/python
# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Ansible module: a virtual environment that holds just what a lock file lists."""

from __future__ import annotations

DOCUMENTATION = r"""
module: locked_venv
short_description: Make a Python virtual environment from a hashed lock file
version_added: 0.1.0
description:
  - Makes a virtual environment that holds just what a lock file lists, each file checked against its hash.
  - M(ansible.builtin.pip) asks pip on every run and reports a change for any requirements file in check mode.
    This module keeps the lock file's digest in the environment, so that a run without changes is quick and check
    mode tells the truth.
  - An environment that another lock file or another Python made, or that a killed run left unfinished, is made
    anew. Another Python is another minor version or another file; an update of the same one makes nothing anew.
  - An environment that a program still uses is never made anew; that is an error, which names the process.
  - Where pip is still at work for a controller that is gone, it is waited for.
  - What pip unpacks meanwhile lies beside the environment, not in the system's folder for temporary files.
  - Everybody may read the environment and run its programs.
author:
  - The faceswap-oci maintainers
options:
  path:
    description: Folder of the virtual environment.
    type: path
    required: true
  lock:
    description: The lock file on the host, complete and with hashes, as C(pip install --require-hashes) takes it.
    type: path
    required: true
  builds:
    description:
      - A second list on the host, of packages whose build depends on the machine, such as torch's for a GPU. It is
        installed after the first. A list with hashes is as complete as the first; of one without, which pins versions
        only, pip also installs what is missing for it.
    type: path
  builds_index:
    description: Package index that has those builds, beside the host's own. Empty is none.
    type: str
    default: ""
  patches:
    description: Changes to what was installed, by C(file) (below site-packages), C(pattern) (for lines) and C(by).
    type: list
    elements: dict
    default: []
    suboptions:
      file:
        description: The file.
        type: str
        required: true
      pattern:
        description: Regular expression for what is replaced. It is an error where it does not occur.
        type: str
        required: true
      by:
        description: What takes its place.
        type: str
        required: true
  cache_dir:
    description:
      - Folder in which pip keeps what it fetched. Empty is pip's own folder where that is there already, and none
        otherwise, as gigabytes of it may lie on a small disk for nothing.
    type: str
    default: ""
  python:
    description: The interpreter that makes it, a path or a name to be found in E(PATH).
    type: str
    default: python3
  oldest:
    description: Oldest Python that the lock file holds for.
    type: str
    default: "3.11"
  newest:
    description: Newest Python that the lock file holds for.
    type: str
    default: "3.13"
  need_mb:
    description: Free disk space in MB without which nothing is begun.
    type: int
    default: 0
  described_by:
    description:
      - File that tells others that the environment works. It is removed before anything of the environment is.
    type: path
attributes:
  check_mode:
    description: Says whether the environment would be made, not whether a program still uses it.
    support: full
  diff_mode:
    description: Shows why it is made.
    support: full
  idempotent:
    description: An environment that fits is left alone.
    support: full
"""

EXAMPLES = r"""
- name: Install the engine's packages
  faceswap.ops.locked_venv:
    path: /opt/faceswap-oci/venv
    lock: /opt/faceswap-oci/requirements.txt
"""

RETURN = r"""
python:
  description: The environment's interpreter.
  returned: always
  type: str
  sample: /opt/faceswap-oci/venv/bin/python
made:
  description: When the environment was made, in UTC. Empty where check mode would make it.
  returned: always
  type: str
  sample: "2026-11-23T04:48:00Z"
reason:
  description: Why the environment was made, or that nothing changed.
  returned: always
  type: str
  sample: the lock file changed
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.faceswap.ops.plugins.module_utils.patches import PatchError, patch
from ansible_collections.faceswap.ops.plugins.module_utils.urls import without_login
from ansible_collections.faceswap.ops.plugins.module_utils.venv_users import user_of

MARKER = "lock.json"
LOCK_WAIT_S = 900
WORDS = {"lock": "the lock file", "builds": "the list of builds", "patches": "its patches", "python": "Python"}
FULL = "No space left on device"
UNREACHED = "connection broken by"  # pip's words for an index that does not answer
# Not sys.version: it tells one build from another, and the environment outlives an update of its Python.
PROBE = "import json, os, sys; print(json.dumps([sys.version_info[:2], os.path.realpath(sys.executable)]))"


def version(text: str) -> tuple[int, ...]:
    """Return "3.11" as (3, 11), so that versions compare as numbers."""
    return tuple(int(part) for part in text.split("."))


def reason_to_make(path: Path, wanted: dict[str, str]) -> str | None:
    """Return why the environment below `path` must be made anew, or None if it fits `wanted`."""
    if not path.exists():
        return "it is not there"
    try:
        found = json.loads((path / MARKER).read_text())
    except (OSError, ValueError):
        return "it was never finished"
    for key, word in WORDS.items():
        if found.get(key) != wanted.get(key):
            return f"{word} changed"
    return None if (path / "bin" / "python").exists() else "its Python is gone"


def digest(content: bytes) -> str:
    """Return the SHA-256 of it, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def room_of(path: Path) -> int:
    """Return how many bytes of the disk a folder takes; 0 where there is none."""
    return sum(Path(folder, name).lstat().st_blocks * 512 for folder, _, files in os.walk(path) for name in files)


def last_error(output: str) -> str:
    """Return pip's own last error line, or the last line at all."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["no message"])[-1]


def why_not(output: str) -> str:
    """Return why pip did not install: an index out of reach shows as a package that does not exist."""
    if FULL in output:
        return "the disk became full: free some room or choose another folder."
    if UNREACHED in output:
        return (
            "this host does not reach the package index: see to its network, DNS or proxy (`pip config list` shows "
            "what pip uses), then run the same again."
        )
    return last_error(output)


class LockedVenv:
    """Reads the state of the environment, and makes it."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params
        self.path = Path(self.params["path"])
        self.lock = Path(self.params["lock"])

    def wanted(self) -> dict[str, str]:
        """Return the marker that a fitting environment has."""
        python = self.params["python"]
        try:
            code, out, err = self.module.run_command([python, "-c", PROBE], handle_exceptions=False)
        except OSError as error:
            code, out, err = 1, "", error.strerror
        if code:
            self.module.fail_json(msg=f"{python} does not run ({last_error(err)}): name another Python.")
        (major, minor), program = json.loads(out)
        if not version(self.params["oldest"]) <= (major, minor) <= version(self.params["newest"]):
            self.module.fail_json(
                msg=f"{python} is Python {major}.{minor}, and the lock file holds for {self.params['oldest']} to "
                f"{self.params['newest']}: name a Python of these."
            )
        marker = {"lock": digest(self.lock.read_bytes()), "python": f"{major}.{minor} {program}"}
        if self.params["builds"]:
            where = self.params["builds_index"].encode()
            marker["builds"] = digest(Path(self.params["builds"]).read_bytes() + where)
        if self.params["patches"]:
            marker["patches"] = digest(json.dumps(self.params["patches"]).encode())
        return marker

    def check_room(self) -> None:
        """Fail where the disk is too full to begin; the environment of before goes first."""
        place = self.path
        while not place.exists():
            place = place.parent
        free = (shutil.disk_usage(place).free + room_of(self.path)) // 2**20
        if free < self.params["need_mb"]:
            self.module.fail_json(
                msg=f"Only {free} MB are free in {place} and the packages need {self.params['need_mb']} MB: "
                "free some room or choose another folder."
            )

    def refuse_while_used(self, reason: str) -> None:
        """Fail where a program runs that would lose its packages."""
        process = user_of(self.path)
        if process:
            self.module.fail_json(
                msg=f"{self.path} has to be made anew ({reason}), but process {process} uses it: wait until that has "
                "ended or stop it (a job by the tag stop), then run the same again."
            )

    @contextmanager
    def alone(self) -> Iterator[int]:
        """Keep others from making the same environment; yields the lock's descriptor.

        venv and pip inherit it and so hold the lock even where the run that began it was killed.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with (self.path.parent / f".{self.path.name}.lock").open("w") as lock:
            deadline = time.monotonic() + LOCK_WAIT_S
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        self.module.fail_json(
                            msg=f"Another run has been installing packages in {self.path} for {LOCK_WAIT_S} s: "
                            "run the same again when it is done."
                        )
                    time.sleep(1)
            yield lock.fileno()

    def pip(self, packages: Path, lock: int, index: str = "") -> None:
        """Have pip install a list of packages, or fail."""
        words = [str(self.path / "bin" / "python"), "-m", "pip"]
        if self.params["cache_dir"]:
            cache = ["--cache-dir", self.params["cache_dir"]]
        else:
            _, own, _ = self.module.run_command([*words, "cache", "dir"])
            cache = [] if Path(own.strip() or os.devnull).is_dir() else ["--no-cache-dir"]
        words += ["install", "--no-input", *cache, "-r", str(packages)]
        if packages == self.lock or "--hash=" in packages.read_text():
            # The list is complete, so nothing else is looked for: some packages ask for far more than they use.
            words += ["--no-deps", "--require-hashes"]
        with tempfile.TemporaryDirectory(dir=self.path, prefix=".pip-") as room:
            if index:  # in a file that nobody else may read: a login in it would show among the processes
                listed = Path(room) / "index.txt"
                listed.write_text(f"--extra-index-url {index}\n")
                words += ["-r", str(listed)]
            code, out, err = self.module.run_command(words, pass_fds=(lock,), environ_update={"TMPDIR": room})
        if code:
            known = any(sign in err + out for sign in (UNREACHED, FULL))
            said = {} if known else {"stdout": without_login(out), "stderr": without_login(err)}
            why = without_login(why_not(err + out))
            self.module.fail_json(msg=f"The packages could not be installed: {why}", **said)

    def make(self, wanted: dict[str, str], lock: int) -> None:
        """Make the environment from nothing; the marker is written last."""
        self.check_room()
        if self.params["described_by"]:
            Path(self.params["described_by"]).unlink(missing_ok=True)
        if self.path.exists():
            (self.path / MARKER).unlink(missing_ok=True)  # first: a kill now must not leave a valid marker
            shutil.rmtree(self.path)
        venv = [self.params["python"], "-m", "venv", str(self.path)]
        code, out, err = self.module.run_command(venv, pass_fds=(lock,))
        if code:
            hint = " (on Debian and Ubuntu: install python3-venv)" if "ensurepip" in out + err else ""
            self.module.fail_json(msg=f"No virtual environment could be made: {last_error(out + err)}{hint}")
        self.pip(self.lock, lock)
        if self.params["builds"]:
            self.pip(Path(self.params["builds"]), lock, self.params["builds_index"])
        if self.params["patches"]:
            [packages] = self.path.glob("lib/python3*/site-packages")
            patch(packages, self.params["patches"])
        temporary = self.path / (MARKER + ".tmp")
        with temporary.open("w") as stream:
            json.dump({**wanted, "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self.path / MARKER)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "lock": {"type": "path", "required": True},
            "builds": {"type": "path"},
            "builds_index": {"type": "str", "default": ""},
            "patches": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {name: {"type": "str", "required": True} for name in ("file", "pattern", "by")},
            },
            "cache_dir": {"type": "str", "default": ""},
            "python": {"type": "str", "default": "python3"},
            "oldest": {"type": "str", "default": "3.11"},
            "newest": {"type": "str", "default": "3.13"},
            "need_mb": {"type": "int", "default": 0},
            "described_by": {"type": "path"},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)  # a careful host's root would keep it all to itself
    venv = LockedVenv(module)
    result: dict[str, Any] = {"python": str(venv.path / "bin" / "python"), "made": ""}
    try:
        lists = {key: Path(module.params[key]) for key in ("lock", "builds") if module.params[key]}
        lacking = [key for key, path in lists.items() if not path.exists()]
        if module.check_mode and lacking:  # an earlier task would have brought it
            why = f"{WORDS[lacking[0]]} changed" if venv.path.exists() else "it is not there"
            module.exit_json(changed=True, reason=why, diff={"prepared": f"{venv.path}: {why}\n"}, **result)
        wanted = venv.wanted()
        reason = reason_to_make(venv.path, wanted)
        if reason and not module.check_mode:
            with venv.alone() as lock:
                reason = reason_to_make(venv.path, wanted)  # another run may have made it meanwhile
                if reason:
                    venv.refuse_while_used(reason)
                    venv.make(wanted, lock)
        if not (reason and module.check_mode):
            result["made"] = json.loads((venv.path / MARKER).read_text())["made"]
    except PatchError as error:
        module.fail_json(msg=f"The packages were installed, but not changed as they have to be: {error}")
    except OSError as error:
        module.fail_json(msg=f"{error}: the virtual environment could not be made.")
    module.exit_json(
        changed=reason is not None,
        reason=reason or "nothing changed",
        diff={"prepared": f"{venv.path}: {reason}\n" if reason else ""},
        **result,
    )


if __name__ == "__main__":
    main()
