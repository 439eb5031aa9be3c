# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""What will keep a result from being signed, told before anything is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.faceswap.ops.plugins.module_utils import label_look, provenance
from ansible_collections.faceswap.ops.plugins.module_utils.signing_certificate import (
    CERTIFICATE,
    KEY,
    CredentialError,
    credentials,
)


def signing_objections(key: Any, certificate: Any = "") -> list[str]:
    """The first thing that is wrong with a key and a certificate (paths), or with the libraries; else nothing.

    Both empty stand for the test certificate, which is not made yet.
    """
    paths = {KEY: str(key or ""), CERTIFICATE: str(certificate or "")}
    for variable, path in paths.items():
        if path and not Path(path).expanduser().is_absolute():
            return [f"{variable} is a relative path ({path}): give the whole one, which begins with / or ~."]
    try:
        provenance.library()
        label_look.library()
        if any(paths.values()):
            provenance.try_out(credentials(paths[KEY], paths[CERTIFICATE]))
    except (CredentialError, provenance.ProvenanceError) as error:
        return [str(error)]
    return []


class FilterModule:
    """Ansible's way of finding the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return it by its name."""
        return {"signing_objections": signing_objections}
