# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Controller's half of `faceswap.ops.stage`; the other half is the supervisor on the host."""

from __future__ import annotations

import json
import re
import shlex
import time
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible_collections.faceswap.ops.plugins.module_utils.progress import clock, format_progress
from ansible_collections.faceswap.ops.plugins.plugin_utils.living_line import LivingLine, terminal_columns

POLL_SECONDS = 1.0
PAUSES = (1, 2, 4, 7, 10)  # seconds between tries at a host that does not answer, the last again and again
NONSENSE_SECONDS = 60  # a host that goes down ends the supervisor, sudo or systemd in the middle of an answer
OTHER_HOST = re.compile(r"host key verification failed|host identification has changed", re.IGNORECASE)

ARGUMENTS: dict[str, dict[str, Any]] = {
    "supervisor": {"type": "str", "required": True},
    "job_dir": {"type": "str", "required": True},
    "stage": {"type": "str", "required": True},
    "engine_file": {"type": "str", "required": True},
    "script": {"type": "str"},
    "arguments": {"type": "list", "elements": "str", "required": True},
    "neutral_arguments": {"type": "list", "elements": "str", "default": []},
    "inputs": {"type": "list", "elements": "str", "required": True},
    "outputs": {"type": "list", "elements": "str", "required": True},
    "editable": {"type": "list", "elements": "str", "default": []},
    "iterations": {"type": "int"},
    "model": {"type": "str"},
    "training": {"type": "dict", "default": {}},
    "settings": {"type": "dict", "default": {}},
    "neutral_settings": {"type": "dict", "default": {}},
    "stuck_s": {"type": "int", "default": 600},
    "need_mb": {"type": "int", "default": 0},
    "patience_s": {"type": "int", "default": 600},
    "follow": {"type": "bool", "default": True},
}


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core ships no types
    """Starts a stage through the supervisor and, unless told otherwise, follows it."""

    _supports_check_mode = True
    _supports_async = False
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return `changed`, and what became of the stage."""
        super().run(tmp, task_vars)
        _, spec = self.validate_argument_spec(argument_spec=ARGUMENTS)
        supervisor, job, stage = spec.pop("supervisor"), spec.pop("job_dir"), spec["stage"]
        self._patience = spec.pop("patience_s")
        follow = spec.pop("follow")
        self._host = str((task_vars or {}).get("inventory_hostname", "localhost"))
        self._prefix = shlex.join([supervisor])
        self._place = shlex.join([job, stage])
        if self._task.check_mode and not self._remote_file_exists(supervisor):
            return {"changed": True, "reason": "it was never run", "stage": stage, "command": [], "running": False}
        began = time.monotonic()
        answer = self._ask("start", "--check" if self._task.check_mode else "", json.dumps(spec))
        result = {
            "changed": answer["changed"],
            "reason": answer["reason"],
            "stage": stage,
            "command": answer["command"],
            "running": answer["running"],
        }
        if answer["changed"] and self._task.diff:
            result["diff"] = {"prepared": f"{stage}: {answer['reason']}\n"}
        if not (answer["running"] and follow):
            return result
        end = self._follow(stage)
        result.update(
            seconds=end["seconds"],
            waited=round(time.monotonic() - began, 2),
            iterations=end["iterations"],
            ended=end.get("ended"),
            rc=end["exit_code"],
        )
        if not end["complete"]:
            result.update(failed=True, msg=end["message"] or self._lost(stage))
        else:
            result["msg"] = f"{stage} took {clock(end['seconds'])}"
            if end.get("ended"):
                result["msg"] += f": {end['ended']['reason']}"
        return result

    def _follow(self, stage: str) -> dict[str, Any]:
        """Show progress until nobody works on the stage any more; return its last status."""
        line, note = LivingLine(self._host, terminal_columns()), None
        try:
            while (status := self._status(stage, line))["alive"]:
                if status["progress"]:
                    if status["progress"].get("note") != note:
                        note = status["progress"].get("note")
                        line.say(f"{stage}: {note}")
                    line.show(format_progress(status["progress"]), status["progress"])
                time.sleep(POLL_SECONDS)
            line.show(format_progress(status["progress"]), status["progress"])
        finally:
            line.close()
        return status

    def _status(self, stage: str, line: LivingLine) -> dict[str, Any]:
        """Ask for the status, over and over while the host does not answer: it may be booting."""
        since, tries = time.monotonic(), 0
        while True:
            try:
                status = self._ask("status")
            except (AnsibleConnectionFailure, AnsibleActionFail) as error:
                silent = time.monotonic() - since
                if isinstance(error, AnsibleActionFail) and silent > NONSENSE_SECONDS:
                    raise
                # A host with another key is another host; nothing will change that.
                if OTHER_HOST.search(str(error)) or silent > self._patience:
                    raise AnsibleConnectionFailure(
                        f"{self._host} has not answered for {clock(silent)} ({last_line(error)}), and stage {stage} "
                        "goes on there without this machine: run the same command again to watch it."
                    ) from None
            else:
                if tries:
                    line.say(f"{stage}: the host answers again")
                return status
            if not tries:
                line.say(f"{stage}: the host does not answer; the job goes on there")
            self._connection.reset()  # a connection that hangs would be taken again
            time.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
            tries += 1

    @staticmethod
    def _lost(stage: str) -> str:
        return f"Stage {stage} was killed from outside (out of memory?): run it again, it goes on where it was saved."

    def _ask(self, verb: str, flags: str = "", spec: str | None = None) -> dict[str, Any]:
        """Run the supervisor once on the host; AnsibleActionFail with its sentence if it refuses."""
        command = f"{self._prefix} {verb} {self._place} {flags}".rstrip()
        answer = self._low_level_execute_command(command, in_data=spec and spec.encode())
        try:
            content: dict[str, Any] = json.loads(answer["stdout"].strip().splitlines()[-1])
        except (ValueError, IndexError):
            raise AnsibleActionFail(
                f"The supervisor did not answer (exit code {answer['rc']}): "
                f"{(answer['stderr'] or answer['stdout']).strip()[-500:]}"
            ) from None
        if "error" in content:
            raise AnsibleActionFail(content["error"])
        return content


def last_line(error: Exception) -> str:
    """Return the last line of what SSH said."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else "it said nothing"
