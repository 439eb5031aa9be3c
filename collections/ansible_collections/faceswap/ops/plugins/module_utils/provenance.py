# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""What a released video says of itself: a C2PA manifest inside it, and a side-car beside it.

The manifest tells that the video is a composite made with a trained network, from which source, by which engine and
model, and under which consents. It holds ids and hashes, and nothing that names a person, a file or a machine. No
network is used: there is no time stamp of an authority, so `when` is what the clock of this machine said.

C2PA leaves some bytes of an mp4 out of its hash (the content of the boxes `ftyp`, `free` and `skip`, and the padding
of its own box). The side-car has the SHA-256 of the whole file, so that a change there shows as well.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import mimetypes
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.faceswap.ops.plugins.module_utils.private_files import sync_folder
from ansible_collections.faceswap.ops.plugins.module_utils.signing_certificate import Credentials, is_test_name

Json = dict[str, Any]
Stream = io.BufferedIOBase  # of bytes

NAME, VERSION = "faceswap-oci", "0.1.0"
TITLE = "Face swap"  # the video's own name may be a person's
SWAP = "org.faceswap-oci.swap"
SOURCE_TITLE = "source A"
COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
SIDECAR = "faceswap-oci provenance 1"
VIDEO = "video/mp4"
NO_DATA = "application/octet-stream"

# What C2PA can read of the sources that the engines take; of another one the manifest has the hash alone.
READABLE = {".mp4": VIDEO, ".m4v": VIDEO, ".mov": "video/quicktime", ".avi": "video/avi"}

# Nothing is looked up anywhere, and no picture of a source is taken into the manifest.
SETTINGS: Mapping[str, Any] = {
    "version": 1,
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"verify_after_sign": True, "remote_manifest_fetch": False, "ocsp_fetch": False},
}

# What is no sign of a change: nobody was named whom to trust, or the certificate has ended since.
_ONLY_TRUST = {"signingCredential.untrusted"}
_ONLY_TIME = {"signingCredential.expired", "claimSignature.outsideValidity"}

# What differs between two signatures of the same.
_PASSING = ("when", "commit", "tool_version")


class ProvenanceError(Exception):
    """Why nothing was signed, or what is wrong with what was; one sentence with the remedy."""


@dataclass(frozen=True)
class Reading:
    """What C2PA says of a file. `state` is Trusted, Valid or Invalid; Valid says nothing of who signed.

    `signer` and `organization` are what the certificate calls itself, `swap` our own assertion ({} without one).
    `failures` are C2PA's codes, or what its reader said where it came to no code.
    """

    state: str
    failures: Sequence[str] = ()
    signer: str = ""
    organization: str = ""
    manifest: Json = field(default_factory=dict)

    @property
    def expired(self) -> bool:
        """Whether nothing is wrong but that the certificate has ended since."""
        return bool(_ONLY_TIME & set(self.failures)) and not set(self.failures) - _ONLY_TIME - _ONLY_TRUST

    @property
    def altered(self) -> bool:
        """Whether the file is not what was signed."""
        return self.state == "Invalid" and not self.expired

    @property
    def is_test(self) -> bool:
        """Whether it was signed with a test certificate of faceswap-oci, whatever is trusted."""
        return is_test_name(self.signer, self.organization)

    @property
    def swap(self) -> Json:
        """What it says of the swap."""
        return _assertion(self.manifest, SWAP)

    @property
    def when(self) -> str:
        """When the signer's clock says that it was made; "" where it does not."""
        actions = _assertion(self.manifest, "c2pa.actions.v2").get("actions")
        if not isinstance(actions, list):
            return ""
        return next((str(one["when"]) for one in actions if isinstance(one, dict) and "when" in one), "")


def library() -> Any:
    """C2PA's library; ProvenanceError where it is missing. Loaded late: only who signs or reads needs its 24 MB."""
    try:
        import c2pa
    except ImportError:
        raise ProvenanceError(
            "The C2PA library is missing, without which no result may leave: install it beside Ansible "
            "(pip install c2pa-python; `make demo` does so)."
        ) from None
    except Exception as error:  # its native part is for another machine
        raise ProvenanceError(
            f"The C2PA library cannot be loaded ({error}): install c2pa-python for this machine's Python."
        ) from None
    return c2pa


# -- the manifest ----------------------------------------------------------------------------------------------------


def swap_assertion(released: Mapping[str, Any], commit: str) -> Json:
    """What our assertion says, out of what the host tells of a released job."""
    engine, model = released["engine"], released["model"]
    return {
        "engine": str(engine["name"]),
        "engine_version": str(engine["version"]),
        "engine_digest": str(engine["digest"]),
        "model_digest": str(model["digest"]),
        "iterations": int(model["iterations"]),
        "consents": [
            {"side": side, "id": str(consent["id"]), "sha256": str(consent["digest"])}
            for side, consent in sorted(released["consents"].items())
        ],
        "sources": [{"side": side, "sha256": str(digest)} for side, digest in sorted(released["sources"].items())],
        "label": dict(released["label"]),
        "commit": commit,
        "tool_version": VERSION,
    }


def manifest(swap: Mapping[str, Any], when: datetime.datetime) -> Json:
    """The manifest without its ingredient."""
    tool = {"name": NAME, "version": VERSION}
    edited = {
        "action": "c2pa.edited",
        "when": when.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "softwareAgent": tool,
        "digitalSourceType": COMPOSITE,
    }
    return {
        "claim_generator_info": [tool],
        "title": TITLE,
        "format": VIDEO,
        "assertions": [
            {
                "label": "c2pa.actions.v2",
                "data": {
                    "actions": [{"action": "c2pa.opened", "parameters": {"ingredientIds": [SOURCE_TITLE]}}, edited]
                },
            },
            {"label": SWAP, "data": dict(swap)},
        ],
    }


def same_content(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two manifests say the same, but for when and by which version of this tool."""
    return bool(_lasting(one) == _lasting(other))


def _lasting(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            key: _lasting(inner)
            for key, inner in value.items()
            if key not in _PASSING and not (key == "version" and value.get("name") == NAME)
        }
    return [_lasting(inner) for inner in value] if isinstance(value, list) else value


# -- signing ---------------------------------------------------------------------------------------------------------


def sign(video: Stream, target: Stream, asked: Json, source: Path, credentials: Credentials) -> None:
    """Write the signed video to `target`; ProvenanceError where C2PA refuses.

    A source that C2PA reads brings its own content credentials along, if it has some. Of a folder of images, or of a
    kind of file that C2PA does not know, the ingredient has no data: its hash in our assertion says which it was.
    """
    c2pa = library()
    try:
        with c2pa.Context.from_dict(dict(SETTINGS)) as context, _signer(c2pa, credentials) as signer:
            _build(c2pa, asked, source, context).sign(signer, VIDEO, video, target)
    except c2pa.C2paError as error:
        raise ProvenanceError(f"C2PA could not sign the video ({error}), which stays in quarantine.") from None


def _build(c2pa: Any, asked: Json, source: Path, context: Any) -> Any:
    ingredient = {"title": SOURCE_TITLE, "relationship": "parentOf", "label": SOURCE_TITLE}
    kind = None if source.is_dir() else READABLE.get(source.suffix.lower())
    if kind:
        builder = c2pa.Builder(asked, context=context)
        try:
            with source.open("rb") as stream:
                builder.add_ingredient(ingredient, kind, stream)
            return builder
        except c2pa.C2paError:
            pass  # an end of its name that its content belies, or damage that the engines bore
    return c2pa.Builder({**asked, "ingredients": [{**ingredient, "format": kind or NO_DATA}]}, context=context)


def _signer(c2pa: Any, credentials: Credentials) -> Any:
    return c2pa.Signer.from_info(
        c2pa.C2paSignerInfo(
            alg=credentials.algorithm.encode(),
            sign_cert=credentials.chain,
            private_key=credentials.key,
            ta_url=None,
        )
    )


def try_out(credentials: Credentials) -> None:
    """Sign a picture of one pixel; ProvenanceError where C2PA does not take the key or the certificate."""
    c2pa = library()
    action = {"action": "c2pa.created", "digitalSourceType": COMPOSITE}
    asked = {
        "claim_generator_info": [{"name": NAME, "version": VERSION}],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
    }
    target = io.BytesIO()
    try:
        with c2pa.Context.from_dict(dict(SETTINGS)) as context, _signer(c2pa, credentials) as signer:
            c2pa.Builder(asked, context=context).sign(signer, "image/gif", io.BytesIO(_PIXEL), target)
    except c2pa.C2paError as error:
        raise ProvenanceError(f"C2PA does not sign with this key and certificate ({error}): name others.") from None


_PIXEL = b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\1\0\1\0\0\2\2D\1\0;"


# -- reading ---------------------------------------------------------------------------------------------------------


def kind_of(path: Path, head: bytes) -> str:
    """The kind of a file for C2PA, by its first 12 bytes, else by its name."""
    if head[4:8] == b"ftyp":
        return VIDEO
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return READABLE[".avi"]
    return READABLE.get(path.suffix.lower()) or mimetypes.guess_type(path.name)[0] or NO_DATA


def read(stream: Stream, kind: str = VIDEO, roots: str = "") -> Reading | None:
    """What C2PA says of a file, None where it carries no manifest. `roots` (PEM) are whom to trust."""
    c2pa = library()
    settings: Json = dict(SETTINGS)
    if roots:
        settings["verify"] = {**settings["verify"], "verify_trust": True}
        settings["trust"] = {"trust_anchors": roots}
    try:
        with (
            c2pa.Context.from_dict(settings) as context,
            c2pa.Reader(kind, stream, context=context) as reader,
        ):
            told: Json = json.loads(reader.json())
    except (c2pa.C2paError.ManifestNotFound, c2pa.C2paError.NotSupported):
        return None
    except c2pa.C2paError as error:
        return Reading("Invalid", (str(error),))
    active = told.get("manifests", {}).get(told.get("active_manifest"))
    if not isinstance(active, dict):  # the name in it was altered
        return Reading("Invalid", ("the manifest that counts is missing",))
    signature = active.get("signature_info") or {}
    results = (told.get("validation_results") or {}).get("activeManifest") or {}
    return Reading(
        state=str(told.get("validation_state") or "Invalid"),
        failures=tuple(str(found["code"]) for found in results.get("failure") or ()),
        signer=str(signature.get("common_name") or ""),
        organization=str(signature.get("issuer") or ""),
        manifest=active,
    )


def objection(reading: Reading | None, asked: Json) -> str | None:
    """What is wrong with a video that was just signed; None: nothing, and it says what was asked for."""
    if reading is None:
        return "the signed video carries no manifest"
    if reading.state not in ("Valid", "Trusted"):
        return f"its signature does not hold ({', '.join(reading.failures)})"
    found = reading.manifest
    if found.get("title") != asked["title"]:
        return "its manifest has another title"
    tool = asked["claim_generator_info"][0]
    said = (found.get("claim_generator_info") or [{}])[0]
    if any(said.get(key) != value for key, value in tool.items()):
        return "its manifest names another tool"
    labels = [assertion["label"] for assertion in found.get("assertions") or ()]
    if sorted(labels) != sorted([*(wanted["label"] for wanted in asked["assertions"]), "c2pa.hash.bmff.v3"]):
        return f"its manifest has other assertions ({', '.join(labels)})"
    if reading.swap != _assertion(asked, SWAP):
        return "its manifest says something else of the swap than was asked for"
    ingredients = found.get("ingredients") or []
    if [(one.get("title"), one.get("relationship")) for one in ingredients] != [(SOURCE_TITLE, "parentOf")]:
        return "its manifest does not have source A as its one ingredient"
    wanted = _assertion(asked, "c2pa.actions.v2")["actions"]
    actions = _assertion(found, "c2pa.actions.v2").get("actions") or []
    opened = (actions[0].get("parameters") or {}).get("ingredients") or [] if actions else []
    if [one.get("action") for one in actions] != ["c2pa.opened", "c2pa.edited"] or actions[1] != wanted[1]:
        return "its manifest tells of other actions"
    # That these hashes are right is among what C2PA has checked.
    if len(opened) != 1 or not str(opened[0].get("url")).endswith(f"/{ingredients[0].get('label')}"):
        return "what its manifest says was opened is not source A"
    return None


def _assertion(found: Mapping[str, Any], label: str) -> Json:
    for assertion in found.get("assertions") or ():
        if assertion.get("label") == label and isinstance(assertion.get("data"), dict):
            data: Json = assertion["data"]
            return data
    return {}


# -- the side-car ----------------------------------------------------------------------------------------------------


def sidecar_path(video: Path) -> Path:
    """Where the side-car of a video lies."""
    return video.with_name(f"{video.name}.provenance.json")


def sidecar(digest: str, unsigned: str, asked: Json, credentials: Credentials, audit: str) -> Json:
    """The side-car's content. `audit` is the hash of the release's line in the audit log."""
    certificate = {"kind": credentials.kind, "name": credentials.signer, "sha256": credentials.fingerprint}
    if credentials.is_test:
        certificate["note"] = "This certificate was made by the tool itself: it proves nothing about who signed."
    return {
        "format": SIDECAR,
        "sha256": digest,
        "unsigned_sha256": unsigned,
        "certificate": certificate,
        "manifest": asked,
        "audit": audit,
    }


def read_sidecar(video: Path) -> Json | None:
    """The side-car of a video, None where there is none; ProvenanceError where it cannot be understood."""
    path = sidecar_path(video)
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ProvenanceError(f"The side-car {path.name} cannot be read ({error.strerror}).") from None
    except (ValueError, RecursionError):  # brackets in brackets
        found = None
    if not isinstance(found, dict) or found.get("format") != SIDECAR or not isinstance(found.get("sha256"), str):
        raise ProvenanceError(f"The side-car {path.name} is damaged, or not one of faceswap-oci.")
    return found


# -- files -----------------------------------------------------------------------------------------------------------


def open_file(path: Path) -> Stream:
    """A file to read, which must be one and no link; OSError otherwise."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(f"{path} is no file")
    return os.fdopen(handle, "rb")


def new_file(name: str, folder: int) -> Stream:
    """A file of this name to write and read, in the folder that a handle stands for."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.fdopen(os.open(name, flags, 0o666, dir_fd=folder), "w+b")


def digest_of(stream: Stream) -> str:
    """SHA-256 of a file, which is at its start before and after."""
    stream.seek(0)
    found = hashlib.file_digest(stream, "sha256").hexdigest()
    stream.seek(0)
    return found


def put(names: Sequence[str], folder: int, dest: Path) -> None:
    """Move written and synced files out of a folder, in this order, so that it lasts through a loss of power."""
    for name in names:
        os.replace(name, dest / name, src_dir_fd=folder)
        sync_folder(dest)
