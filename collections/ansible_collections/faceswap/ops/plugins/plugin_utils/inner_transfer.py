# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""`faceswap.ops.transfer` as a part of another action plugin's work, over that task's own connection."""

from __future__ import annotations

from typing import Any


def transfer(action: Any, task_vars: dict[str, Any] | None, **arguments: Any) -> dict[str, Any]:
    """Run `faceswap.ops.transfer` with these arguments for an action plugin's task; return its result."""
    task = action._task.copy()
    task.args = arguments
    plugin = action._shared_loader_obj.action_loader.get(
        "faceswap.ops.transfer",
        task=task,
        connection=action._connection,
        play_context=action._play_context,
        loader=action._loader,
        templar=action._templar,
        shared_loader_obj=action._shared_loader_obj,
    )
    result: dict[str, Any] = plugin.run(task_vars=task_vars)
    return result
