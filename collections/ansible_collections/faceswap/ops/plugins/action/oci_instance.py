# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Runs the module of the same name, and shows what it tells meanwhile: a launch takes minutes, waiting hours."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.faceswap.ops.plugins.module_utils.run_ledger import STATE_DIR
from ansible_collections.faceswap.ops.plugins.module_utils.run_progress import progress_file, read_progress
from ansible_collections.faceswap.ops.plugins.plugin_utils.living_line import LivingLine, terminal_columns

POLL_SECONDS = 0.5


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core ships no types
    """The module does the work; this only looks over its shoulder."""

    _supports_check_mode = True
    _supports_async = False
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result."""
        super().run(tmp, task_vars)
        host = str((task_vars or {}).get("inventory_hostname", "localhost"))
        arguments = self._task.args
        path = progress_file(str(arguments.get("state_dir") or STATE_DIR), str(arguments.get("name", "")))
        ended = threading.Event()
        watcher = threading.Thread(target=_watch, args=(path, _version(path), host, ended), daemon=True)
        # Elsewhere than on this machine the file cannot be seen; in check mode there is none.
        if watched := self._connection.transport == "local" and not self._task.check_mode:
            watcher.start()
        try:
            result: dict[str, Any] = self._execute_module(task_vars=task_vars)
        finally:
            ended.set()
            if watched:
                watcher.join()
        return _for_people(result, host, shown=watched)


def _for_people(result: dict[str, Any], host: str, shown: bool) -> dict[str, Any]:
    """A failure is shown as a whole: the plan is shown apart, and what is left of it is short."""
    if result.get("failed") and "plan" in result:
        for text in [] if shown else result["plan"]["lines"]:
            LivingLine(host, terminal_columns()).say(text)
        names = ("shape", "availability_domain", "verdict")
        result["plan"] = {"tries": [{name: row[name] for name in names} for row in result["plan"]["tries"]]}
    return result


def _version(path: Path) -> tuple[int, int] | None:
    """What tells one state of a file from another; None where there is none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns


def _watch(path: Path, before: tuple[int, int] | None, host: str, ended: threading.Event) -> None:
    """Show what is written to the file until the module has ended, and then the rest of it.

    `before` is the file as an earlier run left it, which is not shown.
    """
    line = LivingLine(host, terminal_columns())
    shown, last = 0, ""
    over = False
    while not over:
        over = ended.wait(POLL_SECONDS)
        if _version(path) in (before, None):
            continue
        said, now = read_progress(path)
        for text in said[shown:]:
            line.say(text)
        shown = max(shown, len(said))
        if now and now != last and not over:
            line.show(now, {})
            last = now
    line.close()
