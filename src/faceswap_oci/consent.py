"""`faceswap-oci consent`: makes, signs, checks and revokes the records without which nothing is swapped.

What a record is and when it holds is told by the role's own `consent.py`, which the hosts use too; here is what a
person does with it.
"""

import argparse
import datetime
import hashlib
import os
import pwd
import secrets
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from faceswap_oci import ask
from faceswap_oci.play import OK, UsageError
from faceswap_oci.record_files import (
    SIDES,
    USES,
    House,
    Player,
    absolute,
    command,
    read_record,
    same,
    sideless,
    signature_of,
    today,
)
from faceswap_oci.revocation import revoke
from faceswap_oci.shared import role_module
from faceswap_oci.signers import sign, trust


def add_parser(commands: Any, elsewhere: Sequence[argparse.ArgumentParser]) -> None:
    """Put `consent` among the commands; `elsewhere` have the options that name an inventory and variables."""
    parser = commands.add_parser("consent", help="records of who agreed to what: new, sign, check, revoke, trust")
    parser.set_defaults(json=False)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    new_parser = verbs.add_parser("new", help="write a record; asks for what is not given")
    new_parser.add_argument(
        "source", nargs="+", type=Path, metavar="SOURCE", help="video, or folder of images, of the person"
    )
    new_parser.add_argument("--identity", metavar="NAME", help="who it is")
    new_parser.add_argument("--purpose", metavar="TEXT", help="what it is made for")
    new_parser.add_argument(
        "--may", metavar="head|face|both", choices=["head", "face", "both"], help="what may be made"
    )
    new_parser.add_argument("--until", metavar="YYYY-MM-DD", type=_day, help="the last day (default: in a year)")
    new_parser.add_argument(
        "--from", dest="since", metavar="YYYY-MM-DD", type=_day, help="the first day (default: today)"
    )
    new_parser.add_argument("--recorded-by", metavar="NAME", help="who writes it down (default: you)")
    new_parser.add_argument(
        "--reference", type=Path, metavar="PICTURE", help="of the person alone (default: a frame)"
    )
    new_parser.add_argument("--at", type=float, metavar="SECOND", help="of the frame to take (default: the middle)")
    new_parser.add_argument(
        "-o", "--output", type=Path, metavar="RECORD", help="default: NAME.consent.yml beside the source"
    )
    new_parser.add_argument(
        "--force",
        action="store_true",
        help="write over a record that is there, which voids it; what you do not say is kept of it",
    )

    sign_parser = verbs.add_parser("sign", help="sign a record with your SSH key")
    sign_parser.add_argument("record", type=Path, metavar="RECORD")
    _add_key(sign_parser)
    sign_parser.add_argument("--trust", action="store_true", help="count this key as a trusted signer from now on")

    check_parser = verbs.add_parser("check", help="say whether records hold today; of two, whether for one swap")
    check_parser.add_argument("record", nargs="+", type=Path, metavar="RECORD")
    check_parser.add_argument(
        "--source", type=Path, action="append", default=[], help="a file it must be for; repeatable"
    )

    revoke_parser = verbs.add_parser(
        "revoke", parents=elsewhere, help="make a record void, delete what was made with it on the hosts"
    )
    revoke_parser.set_defaults(tags="", check=False, timeout=None)
    revoke_parser.add_argument("id", metavar="ID|RECORD")
    _add_key(revoke_parser)

    trust_parser = verbs.add_parser("trust", help="count a key as a trusted signer on this machine")
    trust_parser.add_argument("key", type=Path, metavar="KEY.pub")
    trust_parser.add_argument("--name", help="who that is (default: the key's comment)")


def _add_key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--key", type=Path, help="your SSH key (default: ~/.ssh/id_ed25519, or the next that is there)"
    )


def run(options: argparse.Namespace, root: Path, player: Player) -> int:
    """Do one of the verbs and return the exit code. `player` plays the revocation. Raises UsageError."""
    house = House(root, role_module(root, "consent.py"), player)
    verbs = {"new": _new, "sign": sign, "check": _check, "revoke": revoke, "trust": trust}
    try:
        return verbs[options.verb](options, house)
    except house.records.ConsentError as error:
        raise UsageError(str(error), error.code) from error
    except PermissionError as error:
        path = Path(error.filename)
        place = path if path.exists() else path.parent
        raise UsageError(f"{place} is not yours: run this as its owner (with sudo where it is root's).") from error
    except BrokenPipeError:  # nobody reads any more, which is main's to end
        raise
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        raise UsageError(f"{named}{error.strerror or error}: mend that, and run the same again.") from error


# --- new ---------------------------------------------------------------------------------------------------


def _new(options: argparse.Namespace, house: House) -> int:
    from faceswap_oci import picture  # brings PyAV, which no other command needs to wait for

    records, sources = house.records, [absolute(path) for path in options.source]
    for given, path in zip(options.source, sources, strict=True):
        if not path.exists():
            raise UsageError(f"There is no {given}: give the video, or the folder of images, of the person.")
    record_path = absolute(options.output or sources[0].with_name(f"{sources[0].stem}.consent.yml"))
    stem = record_path.name.removesuffix(".yml").removesuffix(".consent")
    picture_path = record_path.with_name(f"{stem}.reference.png")
    if not record_path.parent.is_dir():
        raise UsageError(f"There is no folder {options.output.parent}: make it, or name another with --output.")
    _keep(options.force, record_path, *([] if same(options.reference, picture_path) else [picture_path]))
    if options.force:
        _answer_as_before(options, record_path, house)
    answers = _answers(options, sources)
    record = records.Record(
        id=f"consent-{secrets.token_hex(6)}",  # it stands in every result: nobody's name is in it
        sources=tuple(records.Item("0" * 64, path.name) for path in sources),
        reference=records.Item("0" * 64, picture_path.name),
        **answers,
    )
    records.dump(
        record
    )  # what cannot be written is told before the sources are read, which takes a while for long ones
    image = picture.of_file(options.reference) if options.reference else picture.of_source(sources[0], options.at)
    for path in sources:
        print(f"Reading {path.name} ...", flush=True)
    record = replace(
        record,
        sources=tuple(records.Item(records.digest_of(path.resolve()), path.name) for path in sources),
        reference=records.Item(hashlib.sha256(image).hexdigest(), picture_path.name),
    )
    text = records.dump(record)
    signature_of(record_path).unlink(missing_ok=True)
    records.write_whole(picture_path, image)
    records.write_whole(record_path, text.encode())
    print(f"\nWritten: {record_path}\n         {picture_path}")
    again = f"{command()} consent new --force --at SECOND {shlex.join(map(str, options.source))}"
    if options.output:
        again += f" --output {shlex.quote(str(options.output))}"
    print(
        f"The picture must show {record.identity} alone, from the front. Else take another frame, or a picture of "
        f"your own (--reference PICTURE in place of --at); your answers are kept:\n\n  {again}\n"
    )
    if record.valid_until < today():
        print(
            f"It has expired already, on {record.valid_until}, so nothing can be made with it: "
            "write it anew with a later --until, and --force."
        )
    print(f"Then sign the record:\n\n  {command()} consent sign {shlex.quote(str(record_path))}")
    return OK


def _answer_as_before(options: argparse.Namespace, path: Path, house: House) -> None:
    """Take what was not said now from the record that will be written over, and say so."""
    try:
        before, _ = read_record(path, house)
    except (UsageError, house.records.ConsentError):
        return
    kept = {
        "identity": before.identity,
        "purpose": before.purpose,
        "may": before.may_be_made[0] if len(before.may_be_made) == 1 else "both",
        "recorded_by": before.recorded_by,
        "until": before.valid_until if before.valid_until >= today() else None,
    }
    kept = {name: value for name, value in kept.items() if value and getattr(options, name) is None}
    vars(options).update(kept)
    if kept:
        said = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in kept.items())
        print(f"Kept of {path.name} as it was: {said}.")


def _answers(options: argparse.Namespace, sources: Sequence[Path]) -> dict[str, Any]:
    """The fields of a record that a person says: given as options, asked for, or the default."""
    given = {"identity": options.identity, "purpose": options.purpose, "may": options.may}
    since = options.since or today()
    until = options.until or _in_a_year(since)
    if until < since:
        raise UsageError(f"--until {until} lies before {since}, the first day: give a later one.")
    who = options.recorded_by
    if ask.terminal() and None in given.values():
        print(
            f"Consent of one person, for {', '.join(path.name for path in sources)}. Return takes what is in [ ].\n"
        )
        given["identity"] = given["identity"] or ask.text("Who is it (name)", fits=_one_line)
        given["purpose"] = given["purpose"] or ask.text("What is it made for", fits=_one_line)
        if not given["may"]:
            many = {"head": f"{USES['head']} (side A)", "face": f"{USES['face']} (side B)", "both": "either of them"}
            given["may"] = ask.choice("What may be made?", many)
        if not options.until:
            until = _day(ask.text("Valid until which day", until.isoformat(), _wrong_day(since)))
        who = who or ask.text("Who records this", _own_name(), _one_line)
        print()
    elif missing := [f"--{name}" for name, value in given.items() if value is None]:
        raise UsageError(f"There is no terminal to ask on, so say it with {', '.join(missing)}.")
    for name, text in (("identity", given["identity"]), ("purpose", given["purpose"]), ("recorded-by", who or "x")):
        if wrong := _one_line(text):
            raise UsageError(f"--{name} cannot be written: {wrong}")
    return {
        "identity": given["identity"],
        "recorded_by": who or _own_name(),
        "purpose": given["purpose"],
        "may_be_made": tuple(USES) if given["may"] == "both" else (given["may"],),
        "valid_from": since,
        "valid_until": until,
    }


def _keep(force: bool, *paths: Path) -> None:
    there = [path for path in paths if os.path.lexists(path)]
    if there and not force:
        raise UsageError(
            f"{there[0]} is there already, and a record that is written anew has to be signed anew: "
            "name another with --output, or write over it with --force."
        )


def _one_line(text: str) -> str | None:
    good = text.strip() and len(text) <= 200 and text.isprintable()
    return None if good else "Give it in 200 letters at most, on one line."


def _wrong_day(since: datetime.date) -> Callable[[str], str | None]:
    def wrong(text: str) -> str | None:
        try:
            return None if _day(text) >= since else f"That lies before {since}, the first day."
        except argparse.ArgumentTypeError as error:
            return str(error)

    return wrong


def _day(text: str) -> datetime.date:
    try:
        return datetime.datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day: write it as 2027-11-23.") from None


def _in_a_year(day: datetime.date) -> datetime.date:
    return day.replace(year=day.year + 1, day=28 if (day.month, day.day) == (2, 29) else day.day)


def _own_name() -> str:
    account = pwd.getpwuid(os.getuid())
    return account.pw_gecos.split(",")[0].strip() or account.pw_name


# --- check -------------------------------------------------------------------------------------------------


def _check(options: argparse.Namespace, house: House) -> int:
    records, code = house.records, OK
    found = []
    wanted = {path: records.digest_of(absolute(path).resolve()) for path in options.source}
    for given in options.record:
        path, record = absolute(given), None
        try:
            record, _ = read_record(path, house)
            side = SIDES[record.may_be_made[0]]
            consent = records.verified(path, side)
            for source, sha256 in wanted.items():
                records.see_that_it_covers(consent, side, sha256, source)
        except records.ConsentError as error:
            print(f"{given} does not hold: {sideless(error, record) if record else error}")
            code = code or error.code
        else:
            found.append(consent)
            _show(given, path, consent, house)
    if len(found) == 2 and code == OK:
        records.see_that_they_differ(*found)
        if len({frozenset(item.sha256 for item in one.record.sources) for one in found}) == 1:
            raise UsageError("Both are for the same files: a swap needs a video of each.", records.OTHER_FILE)
        print(_for_one_swap(options.record, [consent.record for consent in found], records.NOT_COVERED))
    return code


def _for_one_swap(given: Sequence[Path], records: Sequence[Any], refusal: int) -> str:
    """Which of two records may stand for which side; UsageError where each allows the same use alone."""
    ways = [
        f"A = {given[a]}, B = {given[b]}"
        for a, b in ((0, 1), (1, 0))
        if "head" in records[a].may_be_made and "face" in records[b].may_be_made
    ]
    if not ways:
        [use] = records[0].may_be_made
        other = "face" if use == "head" else "head"
        raise UsageError(
            f"Both are for the {use} alone: one of them must allow the {other} (side {SIDES[other].upper()}).",
            refusal,
        )
    return f"They may go into one swap: {ways[0]}{', or the other way round' if len(ways) == 2 else ''}."


def _show(given: Path, path: Path, consent: Any, house: House) -> None:
    record = consent.record
    left = (record.valid_until - today()).days
    rows = [
        ("who", record.identity),
        ("for", record.purpose),
        ("may be made", "; ".join(f"{USES[use]} (side {SIDES[use].upper()})" for use in record.may_be_made)),
        ("valid", f"{record.valid_from} to {record.valid_until}, {left} days more"),
        ("recorded by", record.recorded_by),
        ("signed by", consent.signer),
        ("id", record.id),
        ("picture", str(consent.reference)),
    ]
    for item in record.sources:
        beside = path.with_name(item.name)
        if not beside.exists():
            said = "not looked at: it is not beside the record (--source says where it is)"
        elif house.records.digest_of(beside.resolve()) == item.sha256:
            said = "the one beside the record"
        else:
            said = "NOT the one beside the record, which is another file of that name"
        rows.append(("source", f"{item.name}: {said}"))
    print(f"{given} holds.")
    for name, value in rows:
        print(f"  {name:<11}  {value}")
