# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""All of `faceswap.ops.supervisor`: has the supervisor on the host stop jobs, or purge folders of jobs."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.faceswap.ops.plugins.plugin_utils.host_programs import RefusedError, host_programs

ARGUMENTS: dict[str, dict[str, Any]] = {
    "supervisor": {"type": "str", "required": True},
    "verb": {"type": "str", "choices": ["stop", "purge"], "required": True},
    "places": {"type": "list", "elements": "str", "required": True},
    "ids": {"type": "list", "elements": "str", "default": []},
}


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core ships no types
    """Asks for one place after the other, also after one that fails."""

    _supports_check_mode = False
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return `changed`, and what the supervisor answered for each place."""
        super().run(tmp, task_vars)
        _, spec = self.validate_argument_spec(argument_spec=ARGUMENTS)
        result: dict[str, Any] = {"changed": False, "answers": {}}
        try:
            programs = host_programs(self, task_vars or {}, spec["supervisor"])
        except RefusedError as error:
            return error.task_result()
        said = []
        for place in spec["places"]:
            try:
                answer = programs.ask(spec["verb"], place, *spec["ids"])
            except AnsibleActionFail as error:
                if isinstance(error, RefusedError):
                    result["consent_code"] = error.code
                said.append(f"{place}: {error}")
            else:
                result["answers"][place] = answer
                result["changed"] |= answer["changed"]
        return {**result, "failed": True, "msg": " ".join(said)} if said else result
