"""`faceswap-oci verify FILE`: who signed a video, whether it was altered, what it says, whether the label is there.

What a file says of itself is somebody else's text: it is held against nothing but its signature, and shown without
what a terminal would obey.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from faceswap_oci.shared import collection_module, printable, role_module

PROBE = 13  # of the sample, every so many frames are looked at for a label of which nothing is told

OK, BAD, USAGE = 0, 1, 2

SIDES = {"a": "whose head stays", "b": "whose face comes"}


@dataclass
class Findings:
    """What is known of a file. `wrong` has a sentence for each reason not to rely on it; none: all is well.

    `certificate` is test, trusted (a root of --trust stands behind it), unknown, or "" where nothing is signed.
    `sidecar` is fits, differs, damaged or missing. `says` is what the manifest tells of the swap, to be relied on no
    further than the signer. Of `label`, `seen` counts the frames, out of the `frames` looked at, which carry it.
    """

    file: str
    sha256: str = ""
    signed: bool = False
    altered: bool | None = None
    expired: bool = False
    certificate: str = ""
    signed_by: str = ""
    organization: str = ""
    when: str = ""
    sidecar: str = "missing"
    label: dict[str, Any] = field(default_factory=dict)
    says: dict[str, Any] = field(default_factory=dict)
    codes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def add_parser(commands: Any) -> None:
    """Add the command to those of the command line."""
    parser = commands.add_parser(
        "verify",
        help="who signed a video, whether it was altered, and whether the label is there",
        description="Tells who signed a video, whether it was altered since, what it says of the swap, and whether "
        "the label is there. Exit code 0: signed, unaltered and labelled; 1: not so, with a sentence a reason; "
        "2: there is no file to look at, or no certificates in that of --trust.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a released video, wherever it came from")
    parser.add_argument(
        "--trust", type=Path, metavar="ROOTS.pem", help="certificates of those whom you trust to name a signer"
    )
    parser.add_argument("--json", action="store_true", help="the findings as one line of JSON")


def run(options: argparse.Namespace, root: Path) -> int:
    """Look at a file and say what was found; return the exit code. `root` is the checkout."""
    provenance, look = (collection_module(root, name) for name in ("provenance", "label_look"))
    try:
        roots = _roots(options.trust)
        provenance.library()
        look.library()
    except (ValueError, provenance.ProvenanceError) as error:
        print(error, file=sys.stderr)
        return USAGE
    found = examine(options.file, roots, provenance, look, role_module(root, "release/label.py"))
    if not found.sha256 and not options.json:
        print(*map(printable, found.wrong), file=sys.stderr)
        return USAGE
    print(json.dumps(asdict(found)) if options.json else "\n".join(screen(found)), flush=True)
    return USAGE if not found.sha256 else BAD if found.wrong else OK


def _roots(path: Path | None) -> str:
    """The text of a file of certificates; ValueError with the sentence where it is none."""
    if path is None:
        return ""
    from cryptography import x509

    try:
        text = path.read_text(encoding="ascii")
        x509.load_pem_x509_certificates(text.encode())
    except OSError as error:
        raise ValueError(
            f"--trust {path} cannot be read ({error.strerror}): name a file of certificates in PEM."
        ) from None
    except ValueError:
        raise ValueError(
            f"--trust {path} holds no certificates in PEM: give the root of whom you trust, a text that begins with "
            "-----BEGIN CERTIFICATE-----."
        ) from None
    return text


# -- looking ---------------------------------------------------------------------------------------------------------


def examine(path: Path, roots: str, provenance: ModuleType, look: ModuleType, label: ModuleType) -> Findings:
    """All that can be found out about a file; `roots` (PEM) are whom to trust."""
    found = Findings(str(path))
    try:
        with provenance.open_file(path.resolve()) as stream:
            found.sha256 = provenance.digest_of(stream)
            head = stream.read(12)
            stream.seek(0)
            reading = provenance.read(stream, provenance.kind_of(path, head), roots)
    except FileNotFoundError:
        found.wrong.append(f"There is no file {path}: check its name.")
        return found
    except (OSError, RuntimeError) as error:  # RuntimeError: links that go round
        reason = getattr(error, "strerror", None) or "it is no file, but a folder or the like"
        found.wrong.append(f"{path} cannot be read: {reason}.")
        return found
    _signature(found, reading, bool(roots))
    sidecar = _sidecar(found, path, provenance)
    told = found.says.get("label") or (sidecar.get("label") if sidecar else None)
    _label(found, path, look, label, told if isinstance(told, dict) else {})
    return found


def _signature(found: Findings, reading: Any, asked: bool) -> None:
    if reading is None:
        found.wrong.append(
            "It carries no signature: it never had one, or lost it. Encoding or packing anew, and most uploads, take "
            "the signature away."
        )
        return
    found.codes = [str(code) for code in reading.failures]
    if not reading.manifest:
        found.altered = True
        found.wrong.append("It is damaged, altered or cut off: C2PA can make no sense of it.")
        return
    found.signed, found.altered, found.expired = True, reading.altered, reading.expired
    found.signed_by, found.organization, found.when = reading.signer, reading.organization, reading.when
    trusted = reading.state == "Trusted"
    found.certificate = "test" if reading.is_test else "trusted" if trusted else "unknown"
    found.says = dict(reading.swap)
    if reading.altered:
        found.wrong.append("It was altered after it was signed: its signature does not fit it.")
    elif reading.expired:
        found.wrong.append("The signer's certificate has expired since, so its signature counts no longer.")
    if asked and not trusted and not reading.altered:
        found.wrong.append("No root in the file of --trust stands behind the signer's certificate.")
    if not found.says:
        found.wrong.append("Its signature says nothing of a face swap: it was signed by another tool, or over again.")


def _sidecar(found: Findings, path: Path, provenance: ModuleType) -> dict[str, Any]:
    """Hold the file against its side-car; return what that says of the swap."""
    try:
        sidecar = provenance.read_sidecar(path)
    except provenance.ProvenanceError as error:
        found.sidecar = "damaged"
        found.wrong.append(str(error))
        return {}
    if sidecar is None:
        return {}
    found.sidecar = "fits" if sidecar["sha256"] == found.sha256 else "differs"
    if found.sidecar == "differs":  # the signature may hold all the same: anybody can put a side-car there
        found.wrong.append("It is not the file that its side-car is about: a byte of it, or all of it, is another.")
    try:
        assertions = sidecar["manifest"]["assertions"]
        return next((dict(one["data"]) for one in assertions if one["label"] == provenance.SWAP), {})
    except (KeyError, TypeError, ValueError):
        return {}


def _label(found: Findings, path: Path, look: ModuleType, label: ModuleType, told: Mapping[str, Any]) -> None:
    """Look for the label that the manifest tells of, or else for those that the tool puts on by itself."""
    import av.error

    style = _told_style(label, told)
    try:
        if beside := look.unseen(path):
            found.wrong.append(f"It {beside}.")
        if style is None:
            texts = label.DEFAULT_TEXTS.values()
            styles = [label.Style(text, corner) for text in texts for corner in label.CORNERS]
            looked, seen = look.count(path, label, styles, every=PROBE)
            style = styles[max(range(len(styles)), key=lambda n: seen[n])] if any(seen) else None
        if style is not None:
            # What is as it was signed is not scaled either, which spares looking for a larger or a smaller label.
            looked, seen = look.count(path, label, [style], as_drawn=found.signed and not found.altered)
    except (av.error.FFmpegError, OSError, ValueError, IndexError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        found.wrong.append(f"It cannot be played to its end ({reason}): it is no video, or is damaged or cut off.")
        return
    if not looked:
        found.wrong.append("There is no picture in it: it is no video.")
        return
    there = seen[0] if style else 0
    text = style.text if style else ""
    found.label = {"text": text, "frames": looked, "seen": there, "present": there == looked}
    if not there:
        what = f"“{text}”" if style else "one of those that faceswap-oci puts on by itself"
        found.wrong.append(f"The label ({what}) is on none of the {looked} frames looked at.")
    elif there < looked:
        found.wrong.append(f"The label is missing on {looked - there} of the {looked} frames looked at.")


def _told_style(label: ModuleType, told: Mapping[str, Any]) -> Any:
    """The label that is told of; None where nothing is, or in another tool's words."""
    try:
        return label.from_record(told)
    except label.LabelError:
        return None


# -- telling ---------------------------------------------------------------------------------------------------------


def screen(found: Findings) -> list[str]:
    """The findings for a person, in lines."""
    rows = [("Signature", _signature_said(found))]
    if found.signed:
        rows += [("Signed by", _signer_said(found)), ("Trust", _TRUST[found.certificate])]
    if found.sha256:
        rows.append(("Side-car", _SIDECAR[found.sidecar]))
    if found.label:
        label = found.label
        text = f"“{label['text']}” " if label["text"] else ""
        rows.append(("Label", f"{text}on {label['seen']} of {label['frames']} frames looked at"))
    rows += [("It says" if not n else "", line) for n, line in enumerate(_says(found))]
    lines = [printable(found.file), ""]
    lines += [f"{name:<10} {printable(text)}" for name, text in rows if text]
    lines.append("")
    if not found.wrong:
        test = "; by a TEST certificate, which proves nothing about who made it" * (found.certificate == "test")
        return [*lines, f"Signed, unaltered and labelled{test}."]
    return [*lines, *(printable(sentence) for sentence in found.wrong)]


_TRUST = {
    "test": "NONE: a TEST certificate proves nothing about who made it",
    "trusted": "a root in the file of --trust stands behind this signer",
    "unknown": "unknown: anybody can make a certificate of any name; --trust ROOTS.pem tells whom you trust",
}
_SIDECAR = {
    "fits": "beside it; every byte is as it was signed",
    "differs": "beside it, and about ANOTHER file",
    "damaged": "beside it, and DAMAGED",
    "missing": "none beside it (C2PA's own hash leaves out a few bytes that no picture or sound is made of)",
}


def _signature_said(found: Findings) -> str:
    if not found.signed:
        return "unreadable" if found.altered else "none" if found.sha256 else ""
    if found.altered:
        return "BROKEN: the file was altered after it was signed"
    return "expired" if found.expired else "holds: nothing that it covers was altered since"


def _signer_said(found: Findings) -> str:
    where = f" ({found.organization})" if found.organization and found.organization != found.signed_by else ""
    return (found.signed_by or found.organization or "nobody named") + where


def _says(found: Findings) -> list[str]:
    """What the manifest tells of the swap."""
    says = found.says
    if not says:
        return []
    lines = ["AI swapped a face in this video (a composite made with a trained network)"]
    if found.altered:
        lines[0] += "; do not rely on it, the file was altered"
    engine = " ".join(str(says[key]) for key in ("engine", "engine_version") if says.get(key))
    lines.append(f"engine {engine}, {says.get('iterations', '?')} training iterations")
    consents: Sequence[Any] = says["consents"] if isinstance(says.get("consents"), list) else []
    for consent in consents:
        if isinstance(consent, Mapping):
            whose = SIDES.get(str(consent.get("side")), f"side {consent.get('side')}")
            lines.append(f"consent {consent.get('id')} of the person {whose}")
    if found.when:
        lines.append(f"made {found.when.replace('T', ' ').replace('Z', ' UTC')}, by the signer's own clock")
    return lines
