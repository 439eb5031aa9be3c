#!/usr/bin/python
# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Ansible module: the description of an engine, which is there only where the engine was seen to work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_description
short_description: Try an engine, and describe it for those who run it
version_added: 0.2.0
description:
  - Writes the description of an engine, after a program that tries the engine by it has succeeded.
  - Where the trial fails there is no description afterwards, not even an older one, as what that told of is gone.
  - With M(ansible.builtin.copy) and C(validate) the older one would stay, and the failure would not tell its reason.
  - While a program runs in the engine's virtual environment nothing is tried, as the two would take memory from each
    other. That is an error, which names the process, and the older description stays.
author:
  - The faceswap-oci maintainers
options:
  path:
    description: The file, JSON that everybody may read. Its folder is there.
    type: path
    required: true
  description:
    description: What it says; C(python) is the interpreter that runs the trial.
    type: dict
    required: true
  trial:
    description:
      - Python program on the host. Its argument is a file with the description, and the last line that it writes to
        stderr is a sentence that says why it failed.
    type: path
    required: true
attributes:
  check_mode:
    description: Says whether the description would change; nothing is tried.
    support: full
  diff_mode:
    description: Shows the description before and after.
    support: full
  idempotent:
    description: A description that says the same is left alone, and nothing is tried.
    support: full
"""

EXAMPLES = r"""
- name: Try the engine and describe it
  faceswap.ops.engine_description:
    path: /opt/faceswap-oci/engine/engine.json
    trial: /opt/faceswap-oci/engine/try_engine.py
    description:
      name: minifaceswap
      python: /opt/faceswap-oci/engine/venv/bin/python
"""

RETURN = r"""
said:
  description: What the trial wrote to stdout.
  returned: when it was tried
  type: str
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.faceswap.ops.plugins.module_utils.venv_users import user_of


def text_of(path: Path) -> str:
    """Return what a file says, nothing where there is none."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def refuse_while_used(module: AnsibleModule) -> None:
    """Fail where a program of the engine runs, which the trial would disturb, and be disturbed by."""
    process = user_of(Path(module.params["description"]["python"]).parent.parent)
    if process:
        module.fail_json(
            msg=f"The engine is another now and has to be tried, but process {process} uses it: wait until that has "
            "ended or stop it (a job by the tag stop), then run the same again."
        )


def attempt(module: AnsibleModule, path: Path, text: str) -> str:
    """Try the engine, then put its description in place; return what the trial said."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", suffix=".new") as new:
        new.write(text)
        new.flush()
        os.fsync(new.fileno())
        Path(new.name).chmod(0o644)
        code, out, err = module.run_command(
            [module.params["description"]["python"], module.params["trial"], new.name]
        )
        if code:
            path.unlink(missing_ok=True)
            said = ([line for line in err.splitlines() if line.strip()] or [f"exit code {code}"])[-1]
            module.fail_json(msg=f"The engine was installed, but does not work: {said}")
        os.link(new.name, f"{new.name}.tried")  # the file itself goes with the block
        Path(f"{new.name}.tried").replace(path)
    return str(out).strip()


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "description": {"type": "dict", "required": True},
            "trial": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    path = Path(module.params["path"])
    after = json.dumps(module.params["description"], indent=4, sort_keys=True) + "\n"
    result: dict[str, Any] = {}
    try:
        before = text_of(path)
        if before != after and not module.check_mode:
            refuse_while_used(module)
            result["said"] = attempt(module, path, after)
    except OSError as error:
        module.fail_json(msg=f"{error}: the engine's description could not be written.")
    diff = {"before": before, "after": after, "before_header": str(path), "after_header": str(path)}
    module.exit_json(changed=before != after, diff=diff, **result)


if __name__ == "__main__":
    main()
