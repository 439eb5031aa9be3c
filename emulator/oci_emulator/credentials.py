"""Everything that proves who someone is: the emulator's CA, a user's API key, session tokens, and the config file."""

import base64
import hashlib
import json
import ssl
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.x509.oid import NameOID


def new_rsa_key() -> rsa.RSAPrivateKey:
    """A key such as the cloud asks for: RSA, 2048 bits."""
    return rsa.generate_private_key(65537, 2048)


def private_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    """The private key as unencrypted PKCS#8."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def fingerprint(key: rsa.RSAPrivateKey) -> str:
    """MD5 of the public key's DER form, the name the cloud gives to an API key."""
    der = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    digest = hashlib.md5(der, usedforsecurity=False).hexdigest()
    return ":".join(digest[i : i + 2] for i in range(0, 32, 2))


class Authority:
    """A certificate authority of this run, and server certificates for host names as they are asked for."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._lock = threading.Lock()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "OCI emulator")])
        self._certificate = (
            certificate_builder(name, name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def pem(self) -> bytes:
        """The CA's certificate."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def context(self, host: str) -> ssl.SSLContext:
        """A TLS server context with a certificate for this host name."""
        with self._lock:
            if host not in self._contexts:
                self._contexts[host] = self._make_context(host)
            return self._contexts[host]

    def _make_context(self, host: str) -> ssl.SSLContext:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
        leaf = (
            certificate_builder(name, self._certificate.subject, self._leaf_key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._leaf_key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile(suffix=".pem") as chain:  # the ssl module takes certificates from files only
            chain.write(private_pem(self._leaf_key) + leaf.public_bytes(serialization.Encoding.PEM) + self.pem())
            chain.flush()
            context.load_cert_chain(chain.name)
        return context


def certificate_builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey
) -> x509.CertificateBuilder:
    """A certificate in the making, valid for a month."""
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=30))
    )


def _usage(**on: bool) -> x509.KeyUsage:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: on.get(name, False) for name in names})


class TokenIssuer:
    """Issues the session tokens (JWT, RS256) of this run and knows them again."""

    def __init__(self) -> None:
        self._key = new_rsa_key()

    def issue(self, session: rsa.RSAPublicKey, claims: dict[str, Any], seconds: float) -> str:
        """A token for a session key, valid for so many seconds (negative: expired)."""
        numbers = session.public_numbers()
        jwk = {"kty": "RSA", "n": _b64(_bytes(numbers.n)), "e": _b64(_bytes(numbers.e)), "alg": "RS256", "use": "sig"}
        now = int(time.time())
        ends = int(now + seconds)
        payload = {**claims, "iat": min(now, ends) - 60, "exp": ends, "jwk": json.dumps(jwk)}
        head = {"alg": "RS256", "typ": "JWT", "kid": "asw"}
        signed = ".".join(_b64(json.dumps(part).encode()) for part in (head, payload))
        return f"{signed}.{_b64(self._key.sign(signed.encode(), PKCS1v15(), hashes.SHA256()))}"

    def session_key(self, token: str) -> rsa.RSAPublicKey | None:
        """The session key in a token of this issuer that has not expired, else None."""
        signed, _, mark = token.rpartition(".")
        try:
            self._key.public_key().verify(_unb64(mark), signed.encode(), PKCS1v15(), hashes.SHA256())
            payload = json.loads(_unb64(signed.partition(".")[2]))
        except (InvalidSignature, ValueError):
            return None
        if payload["exp"] <= time.time():
            return None
        jwk = json.loads(payload["jwk"])
        return rsa.RSAPublicNumbers(*(int.from_bytes(_unb64(jwk[part]), "big") for part in ("e", "n"))).public_key()


def _bytes(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_bytes(data)


def write_profiles(
    state: Path, tenancy: str, user: str, region: str, issuer: TokenIssuer
) -> dict[str, rsa.RSAPublicKey]:
    """Write keys, tokens and the config file into the state folder; return the registered API key by its key id."""
    keys = {name: new_rsa_key() for name in ("api_key", "session_key", "unregistered_key")}
    for name, key in keys.items():
        write_private(state / f"{name}.pem", private_pem(key))
    claims = {"sub": user, "tenant": tenancy, "ttype": "login", "ptype": "user"}
    for name, seconds in (("token", 3600), ("expired_token", -60)):
        write_private(state / name, issuer.issue(keys["session_key"].public_key(), claims, seconds).encode())
    common = f"tenancy={tenancy}\nregion={region}\n"
    session = f"{common}fingerprint={fingerprint(keys['session_key'])}\nkey_file={state / 'session_key.pem'}\n"
    profiles = {
        "DEFAULT": f"user={user}\n{common}fingerprint={fingerprint(keys['api_key'])}\n"
        f"key_file={state / 'api_key.pem'}\n",
        "TOKEN": f"{session}security_token_file={state / 'token'}\n",
        "EXPIRED": f"{session}security_token_file={state / 'expired_token'}\n",
        "WRONGKEY": f"user={user}\n{common}fingerprint={fingerprint(keys['unregistered_key'])}\n"
        f"key_file={state / 'unregistered_key.pem'}\n",
    }
    write_private(state / "config", "\n".join(f"[{name}]\n{body}" for name, body in profiles.items()).encode())
    return {f"{tenancy}/{user}/{fingerprint(keys['api_key'])}": keys["api_key"].public_key()}
