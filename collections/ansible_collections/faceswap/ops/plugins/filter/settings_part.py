# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Which settings of a training a model can go on with, and which begin a new one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.faceswap.ops.plugins.filter.faceswap_options import contract

Settings = dict[str, dict[str, Any]]


def settings_part(settings: Mapping[str, Mapping[str, Any]], part: str) -> Settings:
    """The `updatable` or the `fixed` of a training's `settings`, {section: {setting: value}}.

    Faceswap stores the fixed ones in a model, and goes on with those whatever its ini says. It stores nothing of the
    sections `trainer.*`, which are about the way to the model and not about the model.
    """
    known: Mapping[str, Mapping[str, Mapping[str, Any]]] = contract()["settings"]["train"]
    found: Settings = {}
    for section, options in settings.items():
        for name, value in options.items():
            updatable = section.startswith("trainer.") or known.get(section, {}).get(name, {}).get("updatable", False)
            if updatable == (part == "updatable"):
                found.setdefault(section, {})[name] = value
    return found


class FilterModule:
    """The filter, for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Its name and function."""
        return {"settings_part": settings_part}
