# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Controller's half of `faceswap.ops.weights`: brings what lies here, and remembers checksums."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.faceswap.ops.plugins.module_utils.private_files import make_folder, write_file
from ansible_collections.faceswap.ops.plugins.modules.weights import SUMS, is_url, read_sums
from ansible_collections.faceswap.ops.plugins.plugin_utils.inner_transfer import transfer

Json = dict[str, Any]
MODULE = "faceswap.ops.weights"
STATE = "~/.local/state/faceswap-oci/weights.json"


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core ships no types
    """Has the host fetch, with all sums that are known here."""

    _supports_check_mode = True
    _supports_async = False
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: Json | None = None) -> Json:
        """Return what the module says."""
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        given: Json = dict(self._task.args)
        state = Path(given.pop("state", STATE)).expanduser()
        source = str(given["source"])
        try:
            known = remembered(state)
            given |= {"sums": given.get("sums") or {}, "remembered": known, "state": str(state)}
            if not is_url(source):
                self._bring(given, Path(self._loader.path_dwim(source)))
            done: Json = self._execute_module(MODULE, given, task_vars=task_vars)
            if news := {name: found for name, found in done.get("fetched", {}).items() if known.get(name) != found}:
                remember(state, news, done["vouched"])
        except OSError as error:
            raise AnsibleActionFail(
                f"{error}: the weights' checksums are kept in {state} on the controller."
            ) from None
        return done

    def _bring(self, given: Json, folder: Path) -> None:
        """Send what the host lacks from a folder here, and have the module take it from there."""
        if not folder.is_dir():
            raise AnsibleActionFail(f"There is no folder {folder} on the controller: see the source of the weights.")
        if (folder / SUMS).is_file():
            given["sums"] = {**read_sums((folder / SUMS).read_text()), **given["sums"]}
        given["source"] = f"{given['path']}/.brought"
        check = self._task.check_mode
        self._task.check_mode = True  # the same module only says what it lacks
        try:
            lacks: Json = self._execute_module(MODULE, given, task_vars=self._vars)
        finally:
            self._task.check_mode = check
        for archive in given["archives"]:
            if archive["archive"] in lacks.get("missing", []):
                for file in files_of(folder, archive):
                    if not check:
                        self._send(file, f"{given['source']}/{file.name}")

    def _send(self, file: Path, dest: str) -> None:
        transfer(self, self._vars, src=str(file), dest=dest)


def files_of(folder: Path, archive: Json) -> list[Path]:
    """Return the archive in a folder of the controller, else its files; AnsibleActionFail where there is neither."""
    name = f"{archive['archive']}.zip"
    for packed in (folder / name, folder / archive["release"] / name):
        if packed.is_file():
            return [packed]
    files = [folder / file for file in archive["files"]]
    if all(file.is_file() for file in files):
        return files
    raise AnsibleActionFail(
        f"{folder} has neither {name} nor {' and '.join(archive['files'])}: put one of them there, or leave what "
        "needs it out of the weights that are wanted."
    )


def remembered(state: Path) -> dict[str, str]:
    """Return the sums of what was fetched before; OSError where the file cannot be read."""
    try:
        return dict(json.loads(state.read_text()))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise AnsibleActionFail(f"{state} is damaged: move it away, and the next run will begin it anew.") from None


def remember(state: Path, news: dict[str, str], vouched: Collection[str] = ()) -> None:
    """Add sums; AnsibleActionFail where another host has just got something else under one of the names.

    Those for whose names somebody vouches take the place of what is remembered.
    """
    make_folder(state.parent)
    with (state.parent / f".{state.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = remembered(state)
        for name, found in news.items():
            if name not in vouched and known.get(name, found) != found:
                raise AnsibleActionFail(
                    f"{name} came with the checksum {found[:12]}... to this host and with {known[name][:12]}... to "
                    "another: one of them is not the real one; remove both and get it from where it can be trusted."
                )
        write_file(state, json.dumps(known | news, indent=4, sort_keys=True) + "\n")
