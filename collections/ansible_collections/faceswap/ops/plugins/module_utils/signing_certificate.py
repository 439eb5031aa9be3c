# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""The key and certificate that a released video is signed with: the user's own, or a test certificate made here.

C2PA takes a certificate only for the purpose of e-mail protection (EKU emailProtection), for signatures, and not one
of a certificate authority. Such a certificate comes from an authority; the test certificate comes from nobody, and
says so in its name, so that wherever it is shown nobody takes it for proof.
"""

from __future__ import annotations

import datetime
import fcntl
import os
import pwd
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ansible_collections.faceswap.ops.plugins.module_utils.private_files import make_folder, write_file
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

TEST_NAME = "TEST certificate: proves nothing about who made it"
TEST_ORGANIZATION = "faceswap-oci TEST ONLY"
TEST_DAYS = 365
TEST_RENEWED = 30  # days before its end a new one is made

CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
RSA_LEAST = 2048  # bits

KEY, CERTIFICATE = "faceswap_run_signing_key", "faceswap_run_signing_certificate"

PrivateKey = EllipticCurvePrivateKey | RSAPrivateKey | Ed25519PrivateKey


class CredentialError(Exception):
    """Why nothing can be signed with a key and a certificate, and what to do; one sentence."""


@dataclass(frozen=True)
class Credentials:
    """What a signature is made with. `algorithm` is C2PA's name for it, `chain` PEM with the signer's own first."""

    algorithm: str
    chain: bytes
    key: bytes
    certificate: x509.Certificate
    is_test: bool

    @property
    def kind(self) -> str:
        """How the side-car and the wrapper call it: `test` or `own`."""
        return "test" if self.is_test else "own"

    @property
    def signer(self) -> str:
        """Whom the certificate names, for people."""
        return TEST_NAME if self.is_test else common_name(self.certificate)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()


def common_name(certificate: x509.Certificate) -> str:
    """Whom a certificate names: its common name, else its organization, else all of its subject."""
    for kind in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME):
        for found in certificate.subject.get_attributes_for_oid(kind):
            return str(found.value)
    return certificate.subject.rfc4514_string() or "a certificate without a name"


def is_test_name(name: str | None, organization: str | None) -> bool:
    """Whether a certificate with these names calls itself one of our test certificates."""
    return name == TEST_NAME or organization == TEST_ORGANIZATION


def state_home() -> Path:
    """The folder of this tool's state, in the home that the account database names: no variable moves it."""
    return Path(pwd.getpwuid(os.getuid()).pw_dir) / ".local" / "state" / "faceswap-oci"


def credentials(key: str, certificate: str, state: Path | None = None) -> Credentials:
    """The user's own, or the test certificate where both paths are empty; CredentialError with what is wrong."""
    if bool(key) != bool(certificate):
        lacking, given = (CERTIFICATE, KEY) if key else (KEY, CERTIFICATE)
        raise CredentialError(
            f"{given} is set and {lacking} is not: a key signs only with its certificate; set both, or neither for "
            "the test certificate."
        )
    if not key:
        return throwaway_credentials((state or state_home()) / "test-certificate")
    found = read_credentials(Path(key).expanduser(), Path(certificate).expanduser())
    if found.is_test:
        raise CredentialError(
            f"{CERTIFICATE} is a test certificate of faceswap-oci, which proves nothing: name one of your own."
        )
    return found


def read_credentials(key_path: Path, chain_path: Path, now: datetime.datetime | None = None) -> Credentials:
    """A key and a certificate chain (both PEM) that fit each other and that C2PA takes; CredentialError otherwise."""
    key = _read_key(key_path)
    chain = _read_chain(chain_path)
    leaf = chain[0]
    if _public(leaf.public_key()) != _public(key.public_key()):
        other = any(_public(found.public_key()) == _public(key.public_key()) for found in chain[1:])
        raise CredentialError(
            f"The first certificate of {chain_path} is not that of {KEY} ({key_path}): "
            + ("put the signer's own certificate first in it." if other else "name the two that belong together.")
        )
    _refuse_dates(chain, chain_path, now or datetime.datetime.now(datetime.UTC))
    _refuse_purpose(leaf, chain_path)
    _refuse_chain(chain, chain_path)
    organization = leaf.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return Credentials(
        algorithm=_algorithm(key, key_path),
        chain=b"".join(found.public_bytes(Encoding.PEM) for found in chain),
        key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        certificate=leaf,
        is_test=is_test_name(common_name(leaf), str(organization[0].value) if organization else None),
    )


def _read(path: Path, variable: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CredentialError(f"There is no file {path}: check {variable}.") from None
    except OSError as error:
        raise CredentialError(
            f"{path} cannot be read ({error.strerror}): let the user who runs this read it, or check {variable}."
        ) from None


def _read_key(path: Path) -> PrivateKey:
    try:
        key = load_pem_private_key(_read(path, KEY), None)
    except TypeError:
        raise CredentialError(
            f"The key {path} has a passphrase, which nobody could type in a run: give {KEY} one without, which only "
            "its owner may read (chmod 600)."
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise CredentialError(f"{path} is no private key in PEM: check {KEY}.") from None
    if path.stat().st_mode & 0o077:
        raise CredentialError(f"Others than its owner may read the key {path}: run `chmod 600 {path}`.")
    if not isinstance(key, EllipticCurvePrivateKey | RSAPrivateKey | Ed25519PrivateKey):
        raise CredentialError(f"The key {path} is of a kind that C2PA does not sign with: {_KINDS}.")
    return key


_KINDS = "take one on the curve P-256, P-384 or P-521, Ed25519, or RSA"


def _algorithm(key: PrivateKey, path: Path) -> str:
    """C2PA's name for how this key signs."""
    if isinstance(key, Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, RSAPrivateKey):
        if key.key_size < RSA_LEAST:
            raise CredentialError(f"The RSA key {path} has {key.key_size} bits, and C2PA asks for {RSA_LEAST}.")
        return "ps256"
    if key.curve.name not in CURVES:
        raise CredentialError(f"The key {path} is on the curve {key.curve.name}: {_KINDS}.")
    return CURVES[key.curve.name]


def _read_chain(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(path, CERTIFICATE))
    except ValueError:
        raise CredentialError(
            f"{path} is no certificate in PEM: check {CERTIFICATE} (the signer's own first, then those above it)."
        ) from None


def _refuse_dates(chain: Sequence[x509.Certificate], path: Path, now: datetime.datetime) -> None:
    for found in chain:
        if now > found.not_valid_after_utc:
            raise CredentialError(
                f"The certificate of {common_name(found)} in {path} expired on {found.not_valid_after_utc:%Y-%m-%d}: "
                f"name a valid one with {CERTIFICATE}."
            )
        if now < found.not_valid_before_utc:
            raise CredentialError(
                f"The certificate of {common_name(found)} in {path} is not valid before "
                f"{found.not_valid_before_utc:%Y-%m-%d}: name a valid one with {CERTIFICATE}, or set the clock right."
            )


def _refuse_purpose(leaf: x509.Certificate, path: Path) -> None:
    """What C2PA would call only 'the certificate is invalid'."""
    purposes: Sequence[x509.ObjectIdentifier] = ()
    with suppress(x509.ExtensionNotFound):
        purposes = list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    if ExtendedKeyUsageOID.EMAIL_PROTECTION not in purposes or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in purposes:
        raise CredentialError(
            f"The certificate {path} is not for signing content: C2PA asks for the extended key usage "
            "emailProtection (as an S/MIME certificate has it), and refuses any other; have such a one issued."
        )
    usage, authority = False, False
    with suppress(x509.ExtensionNotFound):
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    with suppress(x509.ExtensionNotFound):
        authority = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    if not usage or authority:
        raise CredentialError(
            f"The certificate {path} "
            + ("is that of an authority" if authority else "lacks the key usage digitalSignature")
            + ", and C2PA takes none such: name a signer's own certificate."
        )


def _refuse_chain(chain: Sequence[x509.Certificate], path: Path) -> None:
    """Each certificate must be issued by the next, or a reader could not follow it to a root."""
    for below, above in pairwise(chain):
        try:
            below.verify_directly_issued_by(above)
        except Exception:  # what it raises depends on what is wrong: names, signature or kind of key
            raise CredentialError(
                f"In {path} the certificate of {common_name(below)} is not issued by the one after it "
                f"({common_name(above)}): put each one's issuer after it."
            ) from None


def _public(key: object) -> bytes:
    made: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return made


# -- the test certificate --------------------------------------------------------------------------------------------


def throwaway_credentials(folder: Path, now: datetime.datetime | None = None) -> Credentials:
    """The test certificate of this machine, made when there is none that is good for another month."""
    now = now or datetime.datetime.now(datetime.UTC)
    try:
        make_folder(folder)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with suppress(CredentialError):
                found = read_credentials(folder / "key.pem", folder / "chain.pem", now)
                if found.certificate.not_valid_after_utc - now > datetime.timedelta(TEST_RENEWED):
                    return found
            for name, text in _make_test(now).items():
                write_file(folder / name, text)
            return read_credentials(folder / "key.pem", folder / "chain.pem", now)
    except OSError as error:
        raise CredentialError(
            f"The test certificate cannot be kept in {folder} ({error.strerror}): make room or give the folder to "
            f"who runs this, or set {KEY} and {CERTIFICATE}."
        ) from None


def _make_test(now: datetime.datetime) -> dict[str, str]:
    """A root and what it issued. The root's key is forgotten: it can never issue anything else."""
    authority, signer = generate_private_key(SECP256R1()), generate_private_key(SECP256R1())
    issuer = _name("TEST root of this machine")
    begin, end = now - datetime.timedelta(hours=1), now + datetime.timedelta(TEST_DAYS)

    def builder(subject: x509.Name, key: EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        )

    root = (
        builder(issuer, authority)
        .add_extension(x509.BasicConstraints(True, 0), True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), True)
        .sign(authority, hashes.SHA256())
    )
    leaf = (
        builder(_name(TEST_NAME), signer)
        .add_extension(x509.BasicConstraints(False, None), True)
        .add_extension(_usage(digital_signature=True), True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), False)
        .sign(authority, hashes.SHA256())
    )
    root_pem = root.public_bytes(Encoding.PEM).decode()
    return {
        "root.pem": root_pem,
        "key.pem": signer.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "chain.pem": leaf.public_bytes(Encoding.PEM).decode() + root_pem,
    }


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, TEST_ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _usage(digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
