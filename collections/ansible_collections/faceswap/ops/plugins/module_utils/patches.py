# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Changes to text files that are made just as meant, or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path


class PatchError(Exception):
    """A patch does not fit, said in a sentence."""


def patch(folder: Path, patches: Iterable[Mapping[str, str]]) -> None:
    """Replace in files below `folder` all that matches, line by line; each of `patches` has file, pattern and by.

    Raises PatchError where a pattern does not occur or a file is not there.
    """
    for change in patches:
        path = folder / change["file"]
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise PatchError(f"{change['file']} is not there to be patched: it is another version.") from None
        text, times = re.subn(change["pattern"], change["by"], text, flags=re.MULTILINE)
        if not times:
            raise PatchError(f"The patch of {change['file']} does not fit: it is another version, or was changed.")
        path.write_text(text, encoding="utf-8")
