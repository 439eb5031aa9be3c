# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""URLs that have a login in them, which is not for other people's eyes."""

from __future__ import annotations

import base64
import re
from urllib.parse import unquote

LOGIN = re.compile(r"(?<=://)([^/?#\s]*)@")


def without_login(text: str) -> str:
    """Return a text without the logins of the URLs in it.

    >>> without_login("https://me:secret@host.example/x cannot be had")
    'https://host.example/x cannot be had'
    """
    return LOGIN.sub("", text)


def authorization(url: str) -> dict[str, str]:
    """Return the HTTP header that says a URL's login; nothing where it has none.

    >>> authorization("https://me:sec%40ret@host.example/x")
    {'Authorization': 'Basic bWU6c2VjQHJldA=='}
    """
    found = LOGIN.search(url)
    if not found:
        return {}
    user, _, password = found[1].partition(":")
    login = f"{unquote(user)}:{unquote(password)}".encode()
    return {"Authorization": f"Basic {base64.b64encode(login).decode()}"}
