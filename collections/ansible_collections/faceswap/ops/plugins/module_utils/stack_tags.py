# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""The freeform tags by which a stack is found again, and the pin of its host key that they carry.

A stack is one instance and its network. The tags are the whole contract between the module that makes it, the
inventory that finds it and a second controller that has never seen it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

STACK = "faceswap-stack"  # the stack's name: what carries it is ours, nothing else is
RUN = "faceswap-run"  # one life of the stack, 12 hex digits
OWNER = "faceswap-owner"
EXPIRES = "faceswap-expires"  # UTC, 2026-11-23T10:00:00Z
USER = "faceswap-user"  # on the instance: the login that its image has
HOST_KEY = "faceswap-host-key"  # on the instance: "first:KEY", "rotating:OLD,NEW" or "rotated:KEY"

# What becomes part of a path or of ssh's command line must not be able to leave it.
PATTERNS = {
    STACK: re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"),
    RUN: re.compile(r"[0-9a-f]{12}"),
    USER: re.compile(r"[a-z_][a-z0-9_-]{0,31}"),
}
_KEY = re.compile(r"AAAAC3NzaC1lZDI1NTE5AAAAI[A-Za-z0-9+/]{43}")  # an ed25519 public key, base64 (RFC 8709)
_KEYS_OF_PHASE = {"first": 1, "rotating": 2, "rotated": 1}


def host_key_tag(phase: str, keys: Sequence[str]) -> str:
    """The value of the tag HOST_KEY: `keys` are the base64 fields that a client may trust now."""
    return f"{phase}:{','.join(keys)}"


def parse_host_key(tag: str) -> tuple[str, list[str]]:
    """Return the phase and the public keys (base64) of a HOST_KEY tag; ValueError when it is none."""
    phase, _, text = tag.partition(":")
    keys = text.split(",")
    if len(keys) != _KEYS_OF_PHASE.get(phase) or not all(_KEY.fullmatch(key) for key in keys):
        raise ValueError(f"{tag!r} is not a host key tag")
    return phase, keys


def fault(tags: Mapping[str, str]) -> str:
    """What is wrong with the tags of an instance, as 'its tag X is missing'; '' when they may be used.

    Who may change tags must not get further than that: these texts become paths and words of ssh's command line.
    """
    for tag, pattern in PATTERNS.items():
        if not pattern.fullmatch(tags.get(tag, "")):
            return f"its tag {tag} is {'malformed' if tags.get(tag) else 'missing'}"
    try:
        parse_host_key(tags.get(HOST_KEY, ""))
    except ValueError:
        return f"its tag {HOST_KEY} is {'malformed' if tags.get(HOST_KEY) else 'missing'}"
    return ""


def alias(tags: Mapping[str, str]) -> str:
    """The name under which the host key is pinned: addresses come and go, this stays for the stack's life."""
    return f"{tags[STACK]}.{tags[RUN]}"


def known_hosts_lines(tags: Mapping[str, str]) -> list[str]:
    """The pin as lines of a known_hosts file; ValueError when the tags hold none."""
    _, keys = parse_host_key(tags.get(HOST_KEY, ""))
    return [f"{alias(tags)} ssh-ed25519 {key}" for key in keys]


def ssh_options(host_key_alias: str, known_hosts: str) -> list[str]:
    """Options of ssh which accept the pinned key and no other."""
    options = {
        "HostKeyAlias": host_key_alias,
        "UserKnownHostsFile": f'"{known_hosts}"',  # ssh takes a list of files here: quotes keep a space in a name
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "HostKeyAlgorithms": "ssh-ed25519",
        "UpdateHostKeys": "no",
    }
    return [part for name, value in options.items() for part in ("-o", f"{name}={value}")]


def ssh_args(host_key_alias: str, known_hosts: str) -> str:
    """The same as one string, for `ansible_ssh_common_args`."""
    return shlex.join(ssh_options(host_key_alias, known_hosts))


def check_name(name: str) -> None:
    """Refuse a stack's name that cannot also be a folder, a host and a tag; ValueError."""
    if not PATTERNS[STACK].fullmatch(name):
        raise ValueError(
            f"The name {name!r} cannot name a stack: use up to 63 letters, digits and '._-', a letter or digit first."
        )


def check_user(user: str) -> None:
    """Refuse a login that no Linux has; ValueError. It stands in a tag and on ssh's command line."""
    if not PATTERNS[USER].fullmatch(user):
        raise ValueError(f"{user!r} cannot be a login: use lower-case letters, digits, '_' and '-', a letter first.")
