#!/usr/bin/python
# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Ansible module: the signing key of a package repository, taken only with the expected fingerprint."""

from __future__ import annotations

DOCUMENTATION = r"""
module: signing_key
short_description: Fetch the signing key of a package repository and check its fingerprint
version_added: 0.2.0
description:
  - Fetches a public key and writes it to a file, from which apt or dnf takes it (C(Signed-By), C(gpgkey)).
  - The file must hold just one key, with the fingerprint that is asked for; whoever can change what comes over the
    network cannot change that. Needs no GnuPG.
  - A file that holds the key is left alone, and nothing is fetched.
author:
  - The faceswap-oci maintainers
options:
  url:
    description: Where the key is, armored or not.
    type: str
    required: true
  fingerprint:
    description: Fingerprint of the key, 40 hexadecimal digits.
    type: str
    required: true
  path:
    description: File to write. Its folder must be there.
    type: path
    required: true
attributes:
  check_mode:
    description: Says whether the key would be fetched.
    support: full
  diff_mode:
    description: Shows the fingerprint of a key that is taken.
    support: full
  idempotent:
    description: A file that holds the key is left alone.
    support: full
"""

EXAMPLES = r"""
- name: Trust the repository's key
  faceswap.ops.signing_key:
    url: https://packages.example.com/key.pub
    fingerprint: "0123456789ABCDEF0123456789ABCDEF01234567"
    path: /etc/apt/keyrings/example.asc
"""

RETURN = r"""
fingerprint:
  description: The key's fingerprint.
  returned: success
  type: str
"""

import base64
import binascii
import hashlib
import os
import tempfile
import urllib.error
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import ConnectionError as FetchError
from ansible.module_utils.urls import open_url

ARMOR_BEGIN, ARMOR_END = b"-----BEGIN PGP PUBLIC KEY BLOCK-----", b"-----END PGP PUBLIC KEY BLOCK-----"
PUBLIC_KEY = 6  # tag of the packet with a primary key (RFC 9580, 5.5.1.1)


class NotAKeyError(Exception):
    """What was read is not a single OpenPGP public key."""


def dearmor(data: bytes) -> bytes:
    """Return the packets of a key, armored (RFC 9580, 6) or not."""
    _, begin, rest = data.partition(ARMOR_BEGIN)
    if not begin:
        return data
    body, end, _ = rest.partition(ARMOR_END)
    if not end:
        raise NotAKeyError("the key is cut off")
    lines = [line.strip() for line in body.strip().splitlines()]
    if b"" in lines:  # an empty line ends the headers, such as Version:
        lines = lines[lines.index(b"") + 1 :]
    try:  # the last line may be a checksum, which begins with "=": the fingerprint is a better one
        return base64.b64decode(b"".join(line for line in lines if not line.startswith(b"=")), validate=True)
    except binascii.Error as error:
        raise NotAKeyError("the key's text is damaged") from error


def packets(data: bytes) -> list[tuple[int, bytes]]:
    """Return tag and body of each packet (RFC 9580, 4.2)."""
    found, at = [], 0
    try:
        while at < len(data):
            head = data[at]
            if not head & 0x80:
                raise NotAKeyError("it is no OpenPGP key")
            if head & 0x40:
                tag, first = head & 0x3F, data[at + 1]
                if first < 192:
                    size, at = first, at + 2
                elif first < 224:
                    size, at = (first - 192 << 8) + data[at + 2] + 192, at + 3
                elif first == 255:
                    size, at = int.from_bytes(data[at + 2 : at + 6], "big"), at + 6
                else:
                    raise NotAKeyError("the key is in parts")  # only data may be
            else:
                width = {0: 1, 1: 2, 2: 4}.get(head & 3)
                if width is None:
                    raise NotAKeyError("the key's length is open")
                tag, size = head >> 2 & 0xF, int.from_bytes(data[at + 1 : at + 1 + width], "big")
                at += 1 + width
            body, at = data[at : at + size], at + size
            if len(body) < size:
                raise NotAKeyError("the key is cut off")
            found.append((tag, body))
    except IndexError as error:
        raise NotAKeyError("the key is cut off") from error
    return found


def fingerprint(data: bytes) -> str:
    """Return the fingerprint of the one key in `data`, 40 upper-case digits, or raise NotAKeyError."""
    keys = [body for tag, body in packets(dearmor(data)) if tag == PUBLIC_KEY]
    if len(keys) != 1:
        raise NotAKeyError(f"there are {len(keys)} keys and not one")
    if keys[0][:1] != b"\4":
        raise NotAKeyError("it is no key of version 4")
    return hashlib.sha1(b"\x99" + len(keys[0]).to_bytes(2, "big") + keys[0]).hexdigest().upper()


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "fingerprint": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    url, path = module.params["url"], Path(module.params["path"])
    wanted = module.params["fingerprint"].replace(" ", "").upper()
    try:
        before = fingerprint(path.read_bytes())
    except (OSError, NotAKeyError):
        before = ""
    changed = before != wanted
    if changed and not module.check_mode:
        try:
            with open_url(url, timeout=60) as answer:
                data = answer.read()
            found = fingerprint(data)
        except NotAKeyError as error:
            module.fail_json(msg=f"{url} is no signing key: {error}.")
        except (OSError, FetchError, urllib.error.URLError) as error:
            module.fail_json(
                msg=f"The signing key could not be fetched from {url} ({error}): see whether the host gets there, "
                "perhaps by a proxy."
            )
        if found != wanted:
            module.fail_json(
                msg=f"The key at {url} has the fingerprint {found} and not {wanted}: it is not trusted. Where the "
                "repository has a new key, compare it with its owner's word before you name it."
            )
        try:
            handle, temporary = tempfile.mkstemp(dir=module.tmpdir)
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
            module.atomic_move(temporary, str(path))
            module.set_mode_if_different(str(path), "0644", False)  # apt reads it as a user of its own
        except OSError as error:
            module.fail_json(msg=f"The signing key could not be written: {error}.")
    module.exit_json(
        changed=changed,
        fingerprint=wanted,
        diff={"before": f"{before}\n" if before else "", "after": f"{wanted}\n", "before_header": str(path)}
        if changed
        else {},
    )


if __name__ == "__main__":
    main()
