"""Rules on values that hold everywhere and that the SDK's models do not state."""

import base64
import binascii
import ipaddress
import json
import re
from typing import Any

from .errors import invalid, missing

_DNS_LABEL = re.compile(r"[a-zA-Z][a-zA-Z0-9]{0,14}")
_PORTS = range(1, 65536)
_USER_DATA_MAX = 16 * 1024  # bytes, of the base64 text
_METADATA_MAX = 32000  # bytes, of metadata and extendedMetadata together
_METADATA_VALUE_MAX = 255


def check(value: Any) -> None:
    """Check tags, display names and DNS labels at any depth of a body."""
    if isinstance(value, list):
        for item in value:
            check(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name == "freeformTags":
                _check_tags(item or {})
            elif name == "definedTags" and item:
                raise invalid(f"TagNamespace {next(iter(item))} does not exist")
            elif name == "displayName" and item is not None and not 1 <= len(item) <= 255:
                raise invalid("displayName must have 1 to 255 characters")
            elif name == "dnsLabel" and item is not None and not _DNS_LABEL.fullmatch(item):
                raise invalid("dnsLabel must begin with a letter and have at most 15 letters and digits")
            elif name not in ("metadata", "extendedMetadata"):
                check(item)


def _check_tags(tags: dict[str, str]) -> None:
    if len(tags) > 10:
        raise invalid("A resource can have at most 10 free-form tags")
    for key, value in tags.items():
        if not 1 <= len(key) <= 100 or re.search(r"[.\s]", key):
            raise invalid(f"Free-form tag key '{key[:40]}' must have 1 to 100 characters, without periods and spaces")
        if len(value) > 256:
            raise invalid(f"The value of free-form tag '{key}' is longer than 256 characters")


def cidr(text: str, name: str, longest: int = 32, shortest: int = 0) -> ipaddress.IPv4Network:
    """An IPv4 network without host bits; `name` stands in the message."""
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise invalid(f"{name} '{text}' is not a valid CIDR block") from error
    if "/" not in text or not shortest <= network.prefixlen <= longest:
        raise invalid(f"{name} '{text}' must have a prefix from /{shortest} to /{longest}")
    return network


def security_rule(rule: dict[str, Any], direction: str) -> None:
    """A rule of a security list or group. `direction` is INGRESS (has a source) or EGRESS (has a destination)."""
    here, other = ("source", "destination") if direction == "INGRESS" else ("destination", "source")
    if not rule.get(here):
        raise missing(here)
    if rule.get(other):
        raise invalid(f"An {direction} rule has no {other}")
    if rule.get(f"{here}Type", "CIDR_BLOCK") == "CIDR_BLOCK":
        cidr(rule[here], here)
    protocol = rule["protocol"]
    if protocol != "all" and not (protocol.isdigit() and int(protocol) <= 255):
        raise invalid(f"protocol '{protocol}' must be 'all' or a protocol number")
    for options, number in (("tcpOptions", "6"), ("udpOptions", "17"), ("icmpOptions", "1")):
        if rule.get(options) and protocol != number:
            raise invalid(f"{options} need protocol {number}")
    for options in ("tcpOptions", "udpOptions"):
        for ports in (rule.get(options) or {}).values():
            if ports and not (ports["min"] in _PORTS and ports["max"] in _PORTS and ports["min"] <= ports["max"]):
                raise invalid("A port range has min and max from 1 to 65535, min not above max")


def metadata(body: dict[str, Any]) -> None:
    """The metadata of an instance: sizes, and user data that can be decoded."""
    plain, extended = body.get("metadata") or {}, body.get("extendedMetadata") or {}
    if set(plain) & set(extended):
        raise invalid("metadata and extendedMetadata must not have the same keys")
    if len(json.dumps(plain).encode()) + len(json.dumps(extended).encode()) > _METADATA_MAX:
        raise invalid(f"metadata and extendedMetadata together must not be larger than {_METADATA_MAX} bytes")
    for name, value in plain.items():
        if name not in ("user_data", "ssh_authorized_keys") and len(value) > _METADATA_VALUE_MAX:
            raise invalid(f"The value of metadata '{name}' is longer than {_METADATA_VALUE_MAX} characters")
    user_data = plain.get("user_data", "")
    if len(user_data) > _USER_DATA_MAX:
        raise invalid(f"The user_data must not be larger than {_USER_DATA_MAX} bytes")
    try:
        base64.b64decode(user_data, validate=True)
    except binascii.Error as error:
        raise invalid("The user_data must be valid base64") from error
