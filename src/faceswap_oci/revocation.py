"""`faceswap-oci consent revoke`: a record is void from now on, and what was made with it is deleted on the hosts."""

import argparse
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from faceswap_oci import ask
from faceswap_oci.play import BROKEN, OK, Outcome, UsageError
from faceswap_oci.record_files import House, absolute, read_record, today
from faceswap_oci.shared import collection_module, printable
from faceswap_oci.signers import is_trusted, key_to_sign_with, public_line, signed

Json = dict[str, Any]

_JOURNAL = ".revoking.json"  # a signed list on its way into the trust folder


def revoke(options: argparse.Namespace, house: House) -> int:
    """Revoke a record here, delete on the hosts, and tell what is left and where."""
    identifier, whose = _identifier(options.id, house)
    serial = _revoke_here(identifier, whose, options.key, house)
    # Before the play, which takes a while and may be ended by Ctrl-C: the record is void from here on.
    logged = _log(house, "revoked", identifier, {"serial": serial})
    print("\nDeleting what was made with it on the hosts of the inventory:")
    try:
        outcome = house.player({"faceswap_run_revoke": [identifier]})
    except UsageError as error:
        outcome = Outcome("refused", error.code, str(error))
    not_reached = sorted({bad.host for bad in outcome.failures})
    logged &= _log(
        house, "purged", identifier, {"not_reached": not_reached}, outcome.exit_code, _what_went_wrong(outcome)
    )
    if outcome.message:
        print(outcome.message)
    for bad in outcome.failures:
        print(f"NOT deleted on {bad.host}: {bad.message}")
    if outcome.failures:
        print("The same command again deletes there too, once they can be reached.")
    elif outcome.exit_code:
        print("So what was made with it may still be on any of the hosts: mend that, and run the same again.")
    _tell_of_results(identifier, house)
    return outcome.exit_code or (OK if logged else BROKEN)


def _what_went_wrong(outcome: Outcome) -> str:
    """Why a play did not delete everywhere; nothing if it did."""
    said = [outcome.message or "", *(f"{bad.host}: {bad.message}" for bad in outcome.failures)]
    return " ".join(filter(None, said)) or (f"The play ended as {outcome.status}." if outcome.exit_code else "")


def _log(house: House, event: str, identifier: str, settings: Json, code: int = 0, message: str = "") -> bool:
    """Add a line to the audit log; False, and a sentence, where it cannot be."""
    audit = collection_module(house.root, "audit_log")
    entry = {"event": event, "consents": {"revoked": {"id": identifier}}, "settings": settings}
    try:
        audit.append({**entry, "code": code, "message": message})
    except audit.AuditError as error:
        print(error)
        return False
    return True


def _identifier(given: str, house: House) -> tuple[str, str]:
    """A record's id, and whose it is where the record itself was given."""
    path = absolute(Path(given))
    if path.is_file():
        record = read_record(path, house)[0]
        names = sorted({item.name for item in record.sources})
        return record.id, f" ({printable(', '.join([record.identity, *names]))})"
    if not house.records.ID.fullmatch(given):
        raise UsageError(
            f"{given} is neither a record nor the id of one: `faceswap-oci consent check RECORD` shows it."
        )
    if not _is_known(given, house):
        unknown = f"No record {given} is known on this machine: neither its audit log nor its list names it"
        if ask.terminal() and not ask.yes(f"{unknown}. Is the id right", default="n"):
            raise UsageError("Nothing was revoked. `faceswap-oci consent check RECORD` shows a record's id.")
        if not ask.terminal():
            print(f"Warning: {unknown}; it is revoked all the same. See whether the id is right.")
    return given, ""


def _is_known(identifier: str, house: House) -> bool:
    """Whether something here has named this record already; a typing error is else a record of its own."""
    with suppress(house.records.ConsentError):  # one that a killed run left half written is mended by this one
        if identifier in house.records.read_revocations().ids:
            return True
    audit = collection_module(house.root, "audit_log")
    try:
        findings = audit.verify()
    except audit.AuditError:
        return False
    return findings is not None and any(_has(entry, identifier) for entry in findings.entries)


def _revoke_here(identifier: str, whose: str, key: Path | None, house: House) -> int:
    """Put a record on the signed list of the trust folder; return the list's serial."""
    records, folder = house.records, Path(house.records.trust_folder())
    if not (records.trusted_bytes(folder / "allowed_signers") or b"").strip():
        raise UsageError(
            f"Nobody is trusted here ({folder}/allowed_signers names nobody), so no list of revoked records would "
            "count: first `faceswap-oci consent trust KEY.pub`, with the key that you sign with.",
            records.MISSING,
        )
    with _held(folder):
        _finish(folder, records)
        before = records.read_revocations(folder)
        if identifier in before.ids:
            print(f"{identifier}{whose} was revoked on {before.ids[identifier]}.")
            return int(before.serial)
        after = replace(before, serial=before.serial + 1, ids={**before.ids, identifier: today()})
        text = records.dump_revocations(after).encode()
        used = key_to_sign_with(key)
        signature = signed(text, used, records.REVOCATIONS_NAMESPACE, house)
        if not is_trusted(public_line(signature, used), records.REVOCATIONS_NAMESPACE, house):
            raise UsageError(
                f"{used} is not among the trusted signers here ({folder}/allowed_signers), so a list signed with it "
                "would not count: name one that is with --key.",
                records.STRANGER,
            )
        records.write_whole(folder / _JOURNAL, json.dumps([text.decode(), signature.decode()]).encode())
        _finish(folder, records)
    print(f"Revoked: {identifier}{whose}, on list {after.serial} in {folder}")
    return int(after.serial)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """One revocation at a time."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _finish(folder: Path, records: ModuleType) -> None:
    """Bring the list in that a killed run had signed: it is two files, which do not change at once."""
    journal = records.trusted_bytes(folder / _JOURNAL)
    if journal is not None:
        text, signature = json.loads(journal)
        records.keep_revocations(text.encode(), signature.encode(), folder)
        (folder / _JOURNAL).unlink()


def _tell_of_results(identifier: str, house: House) -> None:
    """Name the results on this controller that the audit log knows: they are somebody's to delete by hand."""
    audit = collection_module(house.root, "audit_log")
    try:
        findings = audit.verify()
    except audit.AuditError as error:
        print(error)
        return
    if findings is None:
        return
    if findings.sentences:
        print(f"The audit log was altered, so this may not be all: {findings.sentences[0]}")
    with_it = [entry for entry in findings.entries if _has(entry, identifier)]
    released = {
        Path(path): entry["time"] for entry in with_it if entry["event"] == "released" for path in entry["outputs"]
    }
    released |= {path.with_name(f"{path.name}.provenance.json"): when for path, when in released.items()}
    folders = {path.parent: when for path, when in released.items() if path.exists()}
    if folders:
        print("\nResults with this consent on this machine, which are not deleted (of copies nothing is known):")
    for folder, when in folders.items():
        names = sorted(path.name for path in released if path.parent == folder and path.exists())
        print(f"  {folder}   of {when}: {', '.join(names)}")
    if jobs := sorted({entry["job"] for entry in with_it} - {""}):
        print(
            f"\nIt was used in the jobs {', '.join(jobs)}. Contact sheets of them may lie in `faces` of their "
            "results' folders, and unsigned results in `.quarantine` beside those."
        )
    else:
        print("The audit log of this machine knows of nothing else that was made with it.")


def _has(entry: Mapping[str, Any], identifier: str) -> bool:
    return any(isinstance(one, Mapping) and one.get("id") == identifier for one in entry["consents"].values())
