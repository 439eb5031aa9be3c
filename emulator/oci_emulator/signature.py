"""Checks the signature of a request as Oracle's API does.

Form: `Authorization: Signature algorithm="rsa-sha256",headers="date (request-target) host ...",keyId="...",
signature="...",version="1"` over lines `name: value`; measured with oci 2.189.
"""

import base64
import binascii
import email.utils
import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from .credentials import TokenIssuer
from .errors import ApiError, not_authenticated

_SKEW = 300  # seconds, the "allowed clock skew" of the API's own message
_WITH_BODY = frozenset({"content-length", "content-type", "x-content-sha256"})


@dataclass
class KeyRing:
    """The public keys which may sign: API keys by `tenancy/user/fingerprint`, and the issuer of session tokens."""

    issuer: TokenIssuer
    api_keys: dict[str, RSAPublicKey] = field(default_factory=dict)

    def key(self, key_id: str) -> RSAPublicKey:
        """The public key behind a key id; raises 401 when there is none or its token is not valid."""
        found = self.issuer.session_key(key_id[3:]) if key_id.startswith("ST$") else self.api_keys.get(key_id)
        if found is None:
            raise not_authenticated()
        return found


def verify(
    ring: KeyRing, method: str, target: str, headers: Mapping[str, str], body: bytes, with_host: bool = True,
    ahead: float = 0.0,
) -> None:  # fmt: skip
    """Check one request. `target` is path and query as they came, `headers` has lower-case names; raises 401.

    The exchange for a token alone is signed without the host (`with_host` false). The cloud's clock is so many
    seconds `ahead` of this machine's.
    """
    given = dict(re.findall(r'(\w+)="([^"]*)"', headers.get("authorization", "").removeprefix("Signature ")))
    if given.get("algorithm") != "rsa-sha256" or given.get("version", "1") != "1":
        raise not_authenticated()
    signed = given.get("headers", "").lower().split()
    with_body = method in ("POST", "PUT", "PATCH")
    needed = {"(request-target)"} | ({"host"} if with_host else set()) | (_WITH_BODY if with_body else set())
    if not needed <= set(signed) or not {"date", "x-date"} & set(signed):
        raise not_authenticated()
    lines = []
    for name in signed:
        value = f"{method.lower()} {target}" if name == "(request-target)" else headers.get(name)
        if value is None:
            raise not_authenticated()
        lines.append(f"{name}: {value}")
    key = ring.key(given.get("keyId", ""))
    try:
        mark = base64.b64decode(given.get("signature", ""), validate=True)
        key.verify(mark, "\n".join(lines).encode(), PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, binascii.Error) as error:
        raise not_authenticated() from error
    _check_date(headers.get("x-date" if "x-date" in signed else "date", ""), time.time() + ahead)
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    if with_body and (headers["x-content-sha256"] != digest or headers["content-length"] != str(len(body))):
        raise not_authenticated()


def _check_date(text: str, now: float) -> None:
    try:
        then = email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError) as error:
        raise not_authenticated() from error
    if abs(then - now) > _SKEW:
        raise _skewed(text, now)


def _skewed(text: str, now: float) -> ApiError:
    moments = (now, now - _SKEW, now + _SKEW)
    shown = [email.utils.formatdate(moment, usegmt=True).replace("GMT", "UTC") for moment in moments]
    return not_authenticated(
        f"Date '{text}' is not within allowed clock skew. Current '{shown[0]}', "
        f"valid datetime range: ['{shown[1]}', '{shown[2]}']"
    )
