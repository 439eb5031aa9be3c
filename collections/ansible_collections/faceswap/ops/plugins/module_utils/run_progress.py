# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""What a module that takes minutes tells meanwhile: a file for its action plugin, since a module has no screen."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.faceswap.ops.plugins.module_utils.private_files import write_file


@dataclass
class RunProgress:
    """Lines that stay (`said`) and what is going on now, in one small file (JSON) that is replaced at each change.

    Without a path (check mode) nothing is written.
    """

    path: Path | None
    said: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        """A line that stays."""
        self.said.append(line)
        self.now("")

    def now(self, text: str) -> None:
        """What is going on until something else is said."""
        if self.path is not None:
            write_file(self.path, json.dumps({"said": self.said, "now": text}))


def progress_file(state_dir: str, name: str) -> Path:
    """The file of one stack."""
    return Path(os.path.expandvars(state_dir)).expanduser() / name / "progress.json"


def read_progress(path: Path) -> tuple[list[str], str]:
    """The lines that were said, and what is going on now; nothing where there is no file yet."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return list(content["said"]), str(content["now"])
    except (OSError, ValueError, KeyError, TypeError):
        return [], ""
