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
        watcher = threading.Thread(target=_watch, args=(path, host, ended), daemon=True)
        # Elsewhere than on this machine the file cannot be seen; in check mode there is none.
        if watched := self._connection.transport == "local" and not self._task.check_mode:
            path.unlink(missing_ok=True)  # an earlier run's
            watcher.start()
        try:
            result: dict[str, Any] = self._execute_module(task_vars=task_vars)
        finally:
            ended.set()
            if watched:
                watcher.join()
        return result


def _watch(path: Path, host: str, ended: threading.Event) -> None:
    """Show what is written to the file until the module has ended, and then the rest of it."""
    line = LivingLine(host, terminal_columns())
    shown = 0
    over = False
    while not over:
        over = ended.wait(POLL_SECONDS)
        said, now = read_progress(path)
        for text in said[shown:]:
            line.say(text)
        shown = max(shown, len(said))
        if now and not over:
            line.show(now, {})
    line.close()
