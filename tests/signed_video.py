"""Certificates of every kind, and videos signed with them, for the tests of provenance."""

import datetime
import hashlib
import json
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import av
from ansible_collections.faceswap.ops.plugins.module_utils import provenance
from ansible_collections.faceswap.ops.plugins.module_utils.signing_certificate import Credentials
from ansible_collections.faceswap.ops.plugins.plugin_utils.host_programs import role_files, role_module
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

CLIP = Path(__file__).parent.parent / "demo" / "clipA.mp4"
NOW = datetime.datetime.now(datetime.UTC)

KEYS: dict[str, Callable[[], Any]] = {
    "es256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "es384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "es512": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ps256": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "short RSA": lambda: rsa.generate_private_key(65537, 1024),
    "other curve": lambda: ec.generate_private_key(ec.SECP256K1()),
    "DSA": lambda: dsa.generate_private_key(2048),
}

LABEL = {"text": "AI-manipulated", "corner": "top-left", "size": 5, "opacity": 66}
DIGEST = "0123456789abcdef" * 4


def sha256(path: Path) -> str:
    """A file's digest."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def label_module() -> ModuleType:
    """What the role draws labels with, and looks for them."""
    return role_module(role_files(), "release/label")


def to_stored(picture: Any, matrix: Sequence[int] | None) -> Any:
    """The inverse of the label's `to_display`."""
    if matrix is None:
        return picture
    quarter = abs(matrix[1]) > abs(matrix[0])
    a, d = (matrix[3], matrix[1]) if quarter else (matrix[0], matrix[4])
    picture = picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return picture.swapaxes(0, 1) if quarter else picture


def labelled(target: Path, without: Container[int] = (), opacity: float = 1.0, frames: int = 30) -> Path:
    """The clip with the label of LABEL on its frames, but for those `without`; `opacity` fades it."""
    label = label_module()
    with av.open(str(CLIP)) as source, av.open(str(target), "w") as out:
        old = source.streams.video[0]
        stream = out.add_stream("libx264", rate=25, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = old.width, old.height, "yuv420p"
        drawn = label.draw(label.from_record(LABEL), old.width, old.height).astype(float)
        share = drawn[..., 3:] / 255 * opacity
        for number, frame in enumerate(source.decode(old)):
            if number >= frames:
                break
            picture = frame.to_ndarray(format="rgb24")
            if number not in without:
                picture = (picture * (1 - share) + drawn[..., :3] * share).astype("uint8")
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        out.mux(stream.encode(None))
    return target


@dataclass
class Signer:
    """Files of a signer: key, chain (the signer's own certificate first) and root, all PEM."""

    key: Path
    chain: Path
    root: Path


def make_signer(
    folder: Path,
    kind: str = "es256",
    purpose: ObjectIdentifier | None = ExtendedKeyUsageOID.EMAIL_PROTECTION,
    begin: float = -1,
    days: float = 30,
    authority: bool = False,
    form: PrivateFormat = PrivateFormat.PKCS8,
    name: str = "Jo Signer",
) -> Signer:
    """A signer whose certificate begins and ends so many days from now."""
    folder.mkdir(parents=True, exist_ok=True)
    root_key, key = ec.generate_private_key(ec.SECP256R1()), KEYS[kind]()

    def named(common: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])

    def certificate(subject: str, public: Any, is_authority: bool) -> x509.CertificateBuilder:
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
        )
        return (
            x509.CertificateBuilder()
            .subject_name(named(subject))
            .issuer_name(named("The root"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + datetime.timedelta(begin))
            .not_valid_after(NOW + datetime.timedelta(days))
            .add_extension(x509.BasicConstraints(is_authority, None), True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=not is_authority,
                    key_cert_sign=is_authority,
                    crl_sign=is_authority,
                    decipher_only=False,
                    **usage,
                ),
                True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
        )

    root = certificate("The root", root_key.public_key(), True).sign(root_key, hashes.SHA256())
    builder = certificate(name, key.public_key(), authority).add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), False
    )
    if purpose:
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), False)
    leaf = builder.sign(root_key, hashes.SHA256())
    signer = Signer(folder / "key.pem", folder / "chain.pem", folder / "root.pem")
    signer.key.write_bytes(key.private_bytes(Encoding.PEM, form, NoEncryption()))
    signer.key.chmod(0o600)
    signer.root.write_bytes(root.public_bytes(Encoding.PEM))
    signer.chain.write_bytes(leaf.public_bytes(Encoding.PEM) + root.public_bytes(Encoding.PEM))
    return signer


def released(video: str = "job.mp4", **files: str) -> dict[str, Any]:
    """What a host says of a released job."""
    return {
        "video": video,
        "files": {video: DIGEST, **files},
        "consents": {
            "a": {"id": "consent-a", "digest": "a" * 64, "signer": "anna@example.org"},
            "b": {"id": "consent-b", "digest": "b" * 64, "signer": "berta@example.org"},
        },
        "sources": {"a": sha256(CLIP), "b": "d" * 64},
        "engine": {"name": "minifaceswap", "version": "0.1.0", "digest": "e" * 64},
        "model": {"digest": "f" * 64, "iterations": 400},
        "label": LABEL,
        "settings": {"trainer": "original"},
    }


def asked(told: dict[str, Any] | None = None) -> dict[str, Any]:
    """The manifest for a released job."""
    return provenance.manifest(provenance.swap_assertion(told or released(), "0" * 40), NOW)


def sign(
    video: Path, target: Path, credentials: Credentials, manifest: dict[str, Any] | None = None, source: Path = CLIP
) -> dict[str, Any]:
    """Sign `video` as `target`, with its side-car; return the manifest that was asked for."""
    manifest = manifest or asked()
    with provenance.open_file(video) as stream, target.open("w+b") as out:
        provenance.sign(stream, out, manifest, source, credentials)
        out.seek(0)
        digest = provenance.digest_of(out)
    content = provenance.sidecar(digest, DIGEST, manifest, credentials, "1" * 64)
    provenance.sidecar_path(target).write_text(json.dumps(content))
    return manifest


def boxes(content: bytes) -> dict[str, range]:
    """Where in an mp4 its boxes are, headers included."""
    found, at = {}, 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        found[content[at + 4 : at + 8].decode("latin-1")] = range(at, at + size)
        at += size
    return found


@contextmanager
def flipped(path: Path, at: int, bit: int = 0) -> Iterator[None]:
    """One bit of a file is another meanwhile."""
    with path.open("r+b") as file:
        file.seek(at)
        right = file.read(1)
        file.seek(at)
        file.write(bytes([right[0] ^ 1 << bit]))
        file.flush()
        try:
            yield
        finally:
            file.seek(at)
            file.write(right)
