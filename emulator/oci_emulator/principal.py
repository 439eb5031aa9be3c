"""The instance principal: the metadata service that shows an instance its certificate, and the exchange for a token.

This machine plays one instance of the tenancy: clients find the metadata service by `OCI_METADATA_BASE_URL`.
Source: `oci/auth/federation_client.py` and `oci/auth/signers/` of oci 2.189.
"""

import base64
import binascii
import json
import warnings

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import NameOID

from .answer import Answer, error_answer
from .cloud import new_ocid
from .credentials import certificate_builder, new_rsa_key, private_pem
from .errors import ApiError, not_authenticated, not_found, parse_error
from .signature import KeyRing, verify

_TOKEN_LIFE = 20 * 60  # seconds


class InstancePrincipal:
    """An instance's identity, registered with the ring that checks signatures."""

    def __init__(self, ring: KeyRing, tenancy: str, region: str):
        self._ring, self._tenancy, self._id = ring, tenancy, new_ocid("instance", region)
        authority, key = new_rsa_key(), new_rsa_key()
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "PKISVC Identity Intermediate")])
        units = ("opc-certtype:instance", f"opc-instance:{self._id}", f"opc-tenant:{tenancy}")
        with warnings.catch_warnings():  # the OCIDs are longer than X.520 allows, as in the cloud
            warnings.simplefilter("ignore", UserWarning)
            names = [x509.NameAttribute(NameOID.COMMON_NAME, self._id, _validate=False)]
            names += [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit, _validate=False) for unit in units]
        subject = x509.Name(names)
        above = certificate_builder(issuer, issuer, authority.public_key()).sign(authority, hashes.SHA256())
        leaf = certificate_builder(subject, issuer, key.public_key()).sign(authority, hashes.SHA256())
        self._der = leaf.public_bytes(serialization.Encoding.DER)
        self._shown = {
            "/opc/v2/instance/region": region.encode(),
            "/opc/v2/identity/cert.pem": leaf.public_bytes(serialization.Encoding.PEM),
            "/opc/v2/identity/key.pem": private_pem(key),
            "/opc/v2/identity/intermediate.pem": above.public_bytes(serialization.Encoding.PEM),
        }
        mark = ":".join(f"{byte:02X}" for byte in leaf.fingerprint(hashes.SHA1()))
        ring.api_keys[f"{tenancy}/fed-x509/{mark}"] = key.public_key()

    def metadata(self, path: str, headers: dict[str, str]) -> Answer:
        """Answer a request to the metadata service; version 2 asks for a fixed header against forged requests."""
        if headers.get("authorization") != "Bearer Oracle" or path not in self._shown:
            return error_answer(not_found())
        return Answer(200, {"content-type": "text/plain"}, self._shown[path])

    def exchange(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
        """Give a token for a session key to the holder of the certificate."""
        try:
            if (method, target) != ("POST", "/v1/x509"):
                raise ApiError(404, "NotFound", "The requested URL was not found.")
            verify(self._ring, method, target, headers, body, with_host=False)
            try:
                asked = json.loads(body)
                certificate = base64.b64decode(asked["certificate"], validate=True)
                session = serialization.load_der_public_key(base64.b64decode(asked["publicKey"], validate=True))
            except (ValueError, KeyError, TypeError, binascii.Error) as error:
                raise parse_error("certificate and publicKey must be base64 of DER") from error
            if certificate != self._der or not isinstance(session, RSAPublicKey):
                raise not_authenticated()
        except ApiError as error:
            return error_answer(error)
        claims = {
            "sub": self._id,
            "opc-instance": self._id,
            "tenant": self._tenancy,
            "ttype": "x509",
            "ptype": "instance",
        }
        return Answer(200, {}, json.dumps({"token": self._ring.issuer.issue(session, claims, _TOKEN_LIFE)}).encode())
