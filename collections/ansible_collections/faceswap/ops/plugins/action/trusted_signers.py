# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Controller's half of `faceswap.ops.trusted_signers`: the host trusts whom the controller trusts.

The host also keeps where jobs are made, so that all are found when somebody revokes a consent.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.faceswap.ops.plugins.plugin_utils import trust_end
from ansible_collections.faceswap.ops.plugins.plugin_utils.host_programs import (
    RefusedError,
    controllers_revocations,
    python_of,
    role_files,
    role_module,
    run_there,
)


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core ships no types
    """Brings the controller's lists of signers and revocations to the folder in which the host looks for them."""

    _supports_check_mode = True
    _supports_async = False
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return `changed` and `path`, in check mode also the folders of jobs."""
        super().run(tmp, task_vars)
        _, spec = self.validate_argument_spec(argument_spec={"jobs": {"type": "str", "required": True}})
        consent = role_module(role_files(self), "consent")
        try:
            content = consent.trusted_bytes(consent.trust_folder() / "allowed_signers")
            consent.read_revocations()  # a list that is not signed would have the host refuse everything
            revocations = controllers_revocations(self)
        except (consent.ConsentError, RefusedError) as error:
            return RefusedError(str(error), error.code).task_result()
        order: dict[str, Any] = {"allowed_signers": None, "revocations": None, "jobs": spec["jobs"]}
        order["check"] = self._task.check_mode
        # Where the host is the controller, who runs the jobs there looks where we did.
        if content is not None and (self._connection.transport != "local" or self._connection.become):
            order |= {"allowed_signers": content.decode("utf-8", "replace"), "revocations": revocations}
        program = Path(trust_end.__file__).read_text(encoding="utf-8")
        python = python_of(self, task_vars or {})
        done = run_there(self._low_level_execute_command, python, program, json.dumps(order).encode())
        try:
            answer = json.loads(done["stdout"].strip().splitlines()[-1])
        except (ValueError, IndexError):
            said = (done["stderr"] or done["stdout"]).strip()[-500:]
            raise AnsibleActionFail(f"No Python 3 answered (exit code {done['rc']}): {said}") from None
        if "code" in answer:
            return RefusedError(answer["error"], answer["code"]).task_result()
        if "error" in answer:
            raise AnsibleActionFail(answer["error"])
        result: dict[str, Any] = {key: answer[key] for key in ("changed", "path", "jobs", "gone") if key in answer}
        if self._task.diff and answer["changed"]:
            result["diff"] = {
                "before": answer["before"],
                "after": order["allowed_signers"],
                "before_header": answer["path"],
                "after_header": answer["path"],
            }
        return result
