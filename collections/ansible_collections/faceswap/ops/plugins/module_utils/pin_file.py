# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""The file that pins the host keys of a stack: known_hosts of OpenSSH, by HostKeyAlias instead of by address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ansible_collections.faceswap.ops.plugins.module_utils.private_files import write_file


def merge(text: str, pins: Mapping[str, Sequence[str]], replace: bool) -> tuple[str, list[str]]:
    """Return a pin file's new text, and the aliases for which no key that stood is left.

    `pins` has for each HostKeyAlias its lines (`<alias> ssh-ed25519 <base64>`). With `replace` they take the place of
    what stood for that alias; without it an alias that has a line already is left alone, for the caller's knowledge
    may be older than the file. Lines of other aliases stay: another process may just be pinning a new instance.

    >>> merge("demo.1 ssh-ed25519 AAAAold\\n", {"demo.1": ["demo.1 ssh-ed25519 AAAAnew"]}, replace=True)
    ('demo.1 ssh-ed25519 AAAAnew\\n', ['demo.1'])
    >>> merge("demo.1 ssh-ed25519 AAAAnew\\n", {"demo.1": ["demo.1 ssh-ed25519 AAAAold"]}, replace=False)
    ('demo.1 ssh-ed25519 AAAAnew\\n', [])
    """
    standing: dict[str, list[str]] = {}
    for line in text.splitlines():
        standing.setdefault(line.split(" ", 1)[0], []).append(line)
    foreign = []
    for alias, lines in pins.items():
        stood = standing.get(alias, [])
        if stood and not replace:
            continue
        if stood and not set(stood) & set(lines):
            foreign.append(alias)
        standing[alias] = list(lines)
    return "".join(f"{line}\n" for lines in standing.values() for line in lines), foreign


def pin(path: Path, pins: Mapping[str, Sequence[str]], replace: bool = True) -> list[str]:
    """Bring `pins` into the pin file at `path`; see `merge` for the arguments and what is returned.

    The file is written only when that changes it, and replaced whole, so that an ssh that starts in the same moment
    reads the old or the new one. Raises OSError.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    merged, foreign = merge(text, pins, replace)
    write_file(path, merged)
    return foreign
