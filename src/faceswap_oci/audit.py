"""`faceswap-oci audit verify`: whether the log of what was made here is as it was written."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faceswap_oci.play import FAILED, NOTHING_RUN, OK, UsageError
from faceswap_oci.shared import collection_module, printable


def add_parser(commands: Any) -> None:
    """Put `audit` among the commands."""
    parser = commands.add_parser("audit", help="the log of what was made with whose consent: verify")
    parser.set_defaults(json=False)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verify = verbs.add_parser("verify", help="find any line that was altered, removed, moved, cut off or put in")
    verify.add_argument("--sidecar", type=Path, metavar="FILE", help="a result's provenance.json that must be in it")


def run(options: argparse.Namespace, root: Path) -> int:
    """Verify the log, say what was found, and return the exit code. Raises UsageError."""
    log = collection_module(root, "audit_log")
    sidecar = _sidecar(options.sidecar) if options.sidecar else None
    folder = log.audit_folder()
    try:
        findings = log.verify()
    except log.AuditError as error:
        raise UsageError(str(error), FAILED) from error
    if findings is None:
        print(f"There is no audit log here yet ({folder}): the first stage that is run begins it.")
        return FAILED if sidecar else NOTHING_RUN
    for sentence in findings.sentences:
        print(printable(sentence))
    if findings.sentences and log.remedy(folder) not in findings.sentences[-1]:
        print(printable(f"The log is not as it was written: {log.remedy(folder)}"))
    code = FAILED if findings.sentences else OK
    if code == OK:
        last = f", the last of {findings.entries[-1]['time']}" if findings.entries else ""
        print(printable(f"The audit log is whole: {findings.count} lines{last} ({folder})."))
    if sidecar:
        line = next((entry for entry in findings.entries if entry["hash"] == sidecar["audit"]), None)
        said, good = _about(sidecar, line)
        print(printable(said))
        code = code if good else FAILED
    return code


def _sidecar(path: Path) -> Mapping[str, str]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {name: str(content[name]) for name in ("audit", "sha256")}
    except FileNotFoundError:
        raise UsageError(
            f"There is no {path}: give the NAME.mp4.provenance.json that lies beside a result."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f"{path} is no side-car of a result: give the NAME.mp4.provenance.json that lies beside it."
        ) from error


def _about(sidecar: Mapping[str, str], line: Mapping[str, Any] | None) -> tuple[str, bool]:
    """What the log's line says of a side-car's file, and whether it is that of its release."""
    if line is None:
        return "The side-car's line is not in the log: the result was released elsewhere, or its line is gone.", False
    there = f"The side-car's line is in the log (line {line['n']}), but it"
    if line["event"] != "released":
        return f"{there} is of {line['event']!r} and no release: the side-car was altered.", False
    if sidecar["sha256"] not in line["outputs"].values():
        return f"{there} is about another file.", False
    ids = ", ".join(str(one["id"]) for one in line["consents"].values() if isinstance(one, Mapping) and "id" in one)
    return (
        f"The side-car's file was released on {line['time']} by {line['who']}, with {ids} (line {line['n']}).",
        True,
    )
