# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""A part of a name that tells one content from another."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from ansible_collections.faceswap.ops.plugins.action.transfer import checksum
from ansible_collections.faceswap.ops.plugins.plugin_utils import transfer_end


def content_mark(path: str, exclude: Iterable[str] = ()) -> str:
    """The first 12 digits of the checksum that `transfer` gives for a file or folder on the controller.

    Where `transfer` would refuse it, there is some mark: the refusal with its sentence comes when it is brought.
    """
    listed, _ = transfer_end.answer(
        {"do": "list", "root": path, "exclude": list(exclude), "where": "the controller"}, io.BytesIO()
    )
    return checksum(listed)[:12] if listed.get("kind") in ("file", "folder") else "nothing"


class FilterModule:
    """The filter, for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Its name and function."""
        return {"content_mark": content_mark}
