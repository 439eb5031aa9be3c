# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Asks the programs that faceswap_run has brought to a host, once they have been seen to be the role's own.

Which path is asked comes from variables, which anybody may set; what counts is what lies there. So each order is
carried out by `host_bootstrap.py`, which is sent along and compares all programs with the role's on the controller.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shlex
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible_collections.faceswap.ops.plugins.plugin_utils import host_bootstrap

Json = dict[str, Any]

NOT_ALLOWED = 30
PROGRAMS = ("supervisor.py", "units.py")

# Isolated (-I): neither the environment nor the folder it starts in can put another module in the place of one.
LOADER = "import sys;i=sys.stdin.buffer;exec(i.read(int(i.readline())))"


class RefusedError(AnsibleActionFail):  # type: ignore[misc]  # ansible-core ships no types
    """A refusal of the host's or the controller's, in one sentence, with its code (20 to 32)."""

    def __init__(self, text: str, code: int, differing: str | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.differing = differing

    def task_result(self) -> Json:
        """Return a task's result that tells it."""
        return {"failed": True, "msg": str(self), "consent_code": self.code}


def role_files(action: Any = None) -> Path:
    """Return the folder of the role's programs on the controller: beside this collection, else the task's role."""
    beside = Path(__file__).resolve().parents[6] / "roles" / "faceswap_run" / "files"
    if beside.is_dir():
        return beside
    role = getattr(getattr(action, "_task", None), "_role", None)
    if role is None:
        raise RefusedError(
            "The role faceswap_run is not beside this collection: use both of one checkout.", NOT_ALLOWED
        )
    return Path(role._role_path) / "files"


@cache
def role_module(folder: Path, name: str) -> ModuleType:
    """Return one of the role's modules, such as consent, which reads records alike here and on a host."""
    spec = importlib.util.spec_from_file_location(f"faceswap_run_{name}", folder / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def digests(folder: Path) -> dict[str, str]:
    """Return the digests of all files of the role's programs, as the host has them."""
    files = [path for path in folder.rglob("*") if host_bootstrap.CACHE not in path.parts and path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def python_of(action: Any, task_vars: Json) -> str:
    """Return the interpreter on the host that the user or Ansible has chosen; else the first on the PATH."""
    if action._task.delegate_to:
        task_vars = task_vars.get("ansible_delegated_vars", {}).get(action._task.delegate_to, {})
    chosen = str(action._templar.template(task_vars.get("ansible_python_interpreter") or ""))
    found = (task_vars.get("ansible_facts") or {}).get("discovered_interpreter_python", "python3")
    return chosen if chosen and not chosen.startswith("auto") else str(found)


def run_there(execute: Callable[..., Json], python: str, program: str, data: bytes) -> Json:
    """Run the text of a program on the host with a standard input; return rc, stdout and stderr."""
    text = program.encode()
    command = f"{shlex.quote(python)} -IS -X utf8 -c {shlex.quote(LOADER)}"
    return execute(command, in_data=b"%d\n%s%s" % (len(text), text, data))


class HostPrograms:
    """The supervisor on a host, or units.py. `execute` runs a command there, as ActionBase does."""

    def __init__(self, execute: Callable[..., Json], python: str, supervisor: str, files: dict[str, str]) -> None:
        if Path(supervisor).name not in PROGRAMS:
            raise RefusedError(
                f"{supervisor} runs no stages: name {' or '.join(PROGRAMS)} of the role faceswap_run.",
                NOT_ALLOWED,
            )
        self._execute, self._python, self._supervisor, self._files = execute, python, supervisor, files
        self._bootstrap = Path(host_bootstrap.__file__).read_text(encoding="utf-8")

    def ask(self, *words: str, order: Json | None = None) -> Json:
        """Return the program's answer; RefusedError with a refusal, AnsibleActionFail with any other error."""
        head = json.dumps({"program": self._supervisor, "files": self._files, "words": words})
        data = f"{head}\n{json.dumps(order) if order is not None else ''}".encode()
        done = run_there(self._execute, self._python, self._bootstrap, data)
        try:
            content: Json = json.loads(done["stdout"].strip().splitlines()[-1])
        except (ValueError, IndexError):
            raise AnsibleActionFail(
                f"The supervisor did not answer (exit code {done['rc']}): "
                f"{(done['stderr'] or done['stdout']).strip()[-500:]}"
            ) from None
        if "code" in content and "error" in content:
            raise RefusedError(content["error"], content["code"], content.get("differing"))
        if "error" in content:
            raise AnsibleActionFail(content["error"])
        return content


def host_programs(action: Any, task_vars: Json, supervisor: str) -> HostPrograms:
    """Return the programs on the host of an action plugin's task."""
    files = digests(role_files(action))
    return HostPrograms(action._low_level_execute_command, python_of(action, task_vars), supervisor, files)


def controllers_revocations(action: Any = None) -> Json | None:
    """Return the controller's list of revocations and its signature, for the host to check; None if there is none."""
    consent = role_module(role_files(action), "consent")
    folder = consent.trust_folder()
    try:
        text, signature = (consent.trusted_bytes(folder / name) for name in ("revoked.yml", "revoked.yml.sig"))
    except consent.ConsentError as error:
        raise RefusedError(str(error), error.code) from None
    if text is None and signature is None:
        return None
    return {"text": (text or b"").decode("utf-8", "replace"), "sig": (signature or b"").decode("utf-8", "replace")}
