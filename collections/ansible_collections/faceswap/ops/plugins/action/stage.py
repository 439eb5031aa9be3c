# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Controller's half of `faceswap.ops.stage`; the other half is the supervisor on the host."""

from __future__ import annotations

import re
import time
from pathlib import PurePath
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible_collections.faceswap.ops.plugins.module_utils import audit_log
from ansible_collections.faceswap.ops.plugins.module_utils.progress import clock, format_progress
from ansible_collections.faceswap.ops.plugins.plugin_utils.host_programs import (
    RefusedError,
    controllers_revocations,
    host_programs,
)
from ansible_collections.faceswap.ops.plugins.plugin_utils.living_line import LivingLine, terminal_columns

POLL_SECONDS = 1.0
PAUSES = (1, 2, 4, 7, 10)  # seconds between tries at a host that does not answer, the last again and again
FOUND = "It had ended when this run looked."  # the line's time is later than the end's
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
        supervisor, self._job = spec.pop("supervisor"), spec.pop("job_dir")
        self._stage = spec["stage"]
        self._patience = spec.pop("patience_s")
        follow = spec.pop("follow")
        self._host = str((task_vars or {}).get("inventory_hostname", "localhost"))
        check = self._task.check_mode
        try:
            self._programs = host_programs(self, task_vars or {}, supervisor)
            if check and not self._remote_file_exists(supervisor):
                return self._not_yet("it was never run")
            return self._run(spec, follow)
        except RefusedError as error:
            if check and error.differing:
                return self._not_yet("the host has other programs than this role, which brings its own")
            result = error.task_result()
            self._log("refused", spec, {"code": error.code, "message": str(error)})
            return {**result, "stage": self._stage}

    def _run(self, spec: dict[str, Any], follow: bool) -> dict[str, Any]:
        began, stage = time.monotonic(), self._stage
        order = {"spec": spec, "revocations": controllers_revocations(self)}
        answer = self._ask("start", *(["--check"] if self._task.check_mode else []), order=order)
        result = {
            "changed": answer["changed"],
            "reason": answer["reason"],
            "stage": stage,
            "command": answer["command"],
            "running": answer["running"],
            "consents": answer.get("consents", {}),
        }
        if answer["changed"] and self._task.diff:
            result["diff"] = {"prepared": f"{stage}: {answer['reason']}\n"}
        if not answer["running"] and not self._task.check_mode:
            self._log_what_nobody_saw(spec)
        if not (answer["running"] and follow):
            return result
        end = self._follow(stage)
        result.update(
            seconds=end["seconds"],
            waited=round(time.monotonic() - began, 2),
            iterations=end["iterations"],
            ended=end.get("ended"),
            rc=end["exit_code"],
            consents=end.get("consents") or result["consents"],
        )
        if not end["complete"]:
            result.update(failed=True, msg=end["message"] or self._lost(stage))
            if end.get("code"):
                result["consent_code"] = end["code"]
        else:
            result["msg"] = f"{stage} took {clock(end['seconds'])}"
            if end.get("ended"):
                result["msg"] += f": {end['ended']['reason']}"
        event = "done" if end["complete"] else "refused" if end.get("code") else "failed"
        self._log(event, spec, end if end["complete"] else {**end, "message": result["msg"]})
        return result

    def _not_yet(self, reason: str) -> dict[str, Any]:
        """Return the result where nothing of ours is on the host yet; in check mode nothing brings it."""
        return {"changed": True, "reason": reason, "stage": self._stage, "command": [], "running": False}

    def _log_what_nobody_saw(self, spec: dict[str, Any]) -> None:
        """Log the end of a stage that there is nothing to do for, unless it is known.

        It came while nobody followed it, or an earlier result was brought back.
        """
        status = self._ask("status")
        if status["complete"] and not status["alive"]:
            self._log("done", spec, status, anew=False)

    def _log(self, event: str, spec: dict[str, Any], end: dict[str, Any], anew: bool = True) -> None:
        """Add a line to the audit log; without it nothing counts as done. If not `anew`, it may be there already."""
        if self._task.check_mode:
            return
        sources = {f"source {side}": sha256 for side, sha256 in (end.get("sources") or {}).items()}
        entry = {
            "host": self._host,
            "event": event,
            "stage": self._stage,
            "job": PurePath(self._job).name,
            "consents": end.get("consents") or {},
            "engine": end.get("engine") or {},
            "inputs": {**sources, **(end.get("inputs") or {})},
            "outputs": end.get("outputs") or {},
            "settings": {key: spec[key] for key in ("arguments", "settings", "iterations") if spec.get(key)},
            "code": end.get("code") or 0,
            "message": (end.get("message") or "") if event != "done" else "",
        }
        try:
            if anew or not audit_log.knows(entry):
                audit_log.append(entry if anew else {**entry, "message": FOUND})
        except audit_log.AuditError as error:
            raise AnsibleActionFail(str(error)) from None

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

    def _ask(self, verb: str, *flags: str, order: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask the supervisor on the host; AnsibleActionFail with its sentence if it refuses."""
        return self._programs.ask(verb, self._job, self._stage, *flags, order=order)


def last_line(error: Exception) -> str:
    """Return the last line of what SSH said."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else "it said nothing"
