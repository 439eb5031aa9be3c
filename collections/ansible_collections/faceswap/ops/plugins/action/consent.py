# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Controller's half of `faceswap.ops.consent`: checks records of consent, and brings them to a job."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.faceswap.ops.plugins.module_utils import audit_log
from ansible_collections.faceswap.ops.plugins.plugin_utils.host_programs import RefusedError, role_files, role_module
from ansible_collections.faceswap.ops.plugins.plugin_utils.inner_transfer import transfer

ARGUMENTS: dict[str, dict[str, Any]] = {
    "record_a": {"type": "str", "default": ""},
    "record_b": {"type": "str", "default": ""},
    "source_a": {"type": "str"},
    "source_b": {"type": "str"},
    "dest": {"type": "str"},
    "brought": {"type": "str", "default": ""},
    "patience_s": {"type": "int", "default": 120},
}


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core ships no types
    """Checks both records on the controller; with `dest`, a `transfer` does the rest."""

    _supports_check_mode = True
    _supports_async = False
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return `consents`, and what the transfer says."""
        super().run(tmp, task_vars)
        _, spec = self.validate_argument_spec(argument_spec=ARGUMENTS)
        consent = role_module(role_files(self), "consent")
        try:
            records = {side: self._record(spec[f"record_{side}"], side) for side in "ab"}
            sources = {side: self._path(spec[f"source_{side}"]) for side in "ab" if spec[f"source_{side}"]}
            found = consent.check(records, sources)
        except (consent.ConsentError, RefusedError) as error:
            return self._refuse(str(error), error.code, spec, task_vars or {})
        except OSError as error:
            text = f"{error.filename} cannot be read ({error.strerror}): mend that."
            return self._refuse(text, consent.OTHER_FILE, spec, task_vars or {})
        result: dict[str, Any] = {"changed": False}
        brought = " ".join([str(spec["dest"] or ""), *(found[side]["digest"] for side in "ab")])
        if spec["dest"] and spec["brought"] != brought:
            result = self._bring(found, records, spec, task_vars)
            if result.get("failed") or result.get("unreachable"):
                return {**result, "consents": found}
        return {**result, "consents": found, "brought": brought}

    def _record(self, path: str, side: str) -> Path:
        if not path:
            raise RefusedError(
                f"There is no consent of side {side.upper()}: name its record in faceswap_run_consent_{side}; one is "
                "made in a minute with `faceswap-oci consent new`, and signed with `faceswap-oci consent sign`.",
                role_module(role_files(self), "consent").MISSING,
            )
        return self._path(path)

    def _path(self, path: str) -> Path:
        return Path(self._loader.path_dwim(path))

    def _refuse(self, text: str, code: int, spec: Any, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return the refusal, which is a line of the audit log too."""
        if not self._task.check_mode:
            entry = {"host": str(task_vars.get("inventory_hostname", "localhost")), "event": "refused", "code": code}
            try:
                audit_log.append({**entry, "stage": "plan", "message": text, "consents": self._named(spec)})
            except audit_log.AuditError as error:
                raise AnsibleActionFail(f"{text} {error}") from None
        return RefusedError(text, code).task_result()

    def _named(self, spec: Any) -> dict[str, Any]:
        """Return the ids of the records that were given, as far as these can be read."""
        consent = role_module(role_files(self), "consent")
        found = {}
        for side in "ab":
            with contextlib.suppress(consent.ConsentError, OSError, ValueError):
                path = self._path(spec[f"record_{side}"])
                found[side] = {"id": consent.parse(consent.read_bytes(path), str(path)).id}
        return found

    def _bring(self, found: Any, records: dict[str, Path], spec: Any, task_vars: dict[str, Any] | None) -> Any:
        """Bring records, signatures and pictures to the host, under their sides' names, and nothing else."""
        with tempfile.TemporaryDirectory(prefix="faceswap-oci-") as folder:
            for side, record in records.items():
                picture = Path(found[side]["reference"])
                shutil.copyfile(record, Path(folder, f"{side}.yml"))
                shutil.copyfile(f"{record}.sig", Path(folder, f"{side}.yml.sig"))
                shutil.copyfile(picture, Path(folder, f"{side}.reference{picture.suffix.lower()}"))
            arguments = {"src": folder, "dest": spec["dest"], "mode": "0640", "mirror": True}
            return transfer(self, task_vars, **arguments, patience_s=spec["patience_s"])
