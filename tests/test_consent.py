"""Records of consent: what they may look like, and everything that makes one void."""

import datetime
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from trust import CONSENT, Trust, consent

c = consent()
TODAY = datetime.date(2026, 11, 23)
RECORD = c.Record(
    id="anna-7f3a",
    identity="Änne Müller",
    recorded_by="Jo Doe",
    purpose='Short film "Zwei": scene 4 # not a comment \\ end',
    may_be_made=("head", "face"),
    sources=(c.Item("a" * 64, "anna 1.mp4"), c.Item("b" * 64, "b.mp4")),
    reference=c.Item("c" * 64, "anna.png"),
    valid_from=datetime.date(2026, 1, 1),
    valid_until=datetime.date(2027, 1, 1),
)


@pytest.fixture
def trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trust:
    made = Trust(tmp_path / "trust")
    monkeypatch.setattr(c, "SYSTEM_TRUST", made.trusted)
    return made


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "anna.mp4"
    path.write_text("a video")
    (tmp_path / "picture.png").write_text("a picture")
    return path


def record(trust: Trust, source: Path, sides: str = "ab", **changes: Any) -> Path:
    return trust.record(source, sides, reference=source.with_name("picture.png"), **changes)


def refused(code: int, act: Callable[[], Any], *words: str) -> str:
    with pytest.raises(c.ConsentError) as raised:
        act()
    text = str(raised.value)
    assert raised.value.code == code, text
    assert "\n" not in text and (text[0].isupper() or text[0] == "/") and text[-1] == ".", text
    assert ": " in text, f"no remedy: {text}"
    assert all(word in text for word in words), text
    return text


# -- the form ------------------------------------------------------------------------------------------------


def as_yaml(text: str) -> Any:
    return yaml.safe_load(text)


def same(text: bytes) -> bool:
    """Whether our reader takes a text; then YAML's must take it too, and find the same in it."""
    try:
        found = c.parse(text)
    except c.ConsentError as error:
        assert error.code == c.UNREADABLE
        return False
    told = yaml.safe_load(text)
    assert list(told) == [
        *("format", "id", "identity", "recorded_by", "purpose", "may_be_made", "sources", "reference"),
        *("valid_from", "valid_until"),
    ]
    assert told["format"] == c.RECORD
    for key in ("id", "identity", "recorded_by", "purpose"):
        assert told[key] == getattr(found, key)
    assert told["may_be_made"] == list(found.may_be_made)
    assert told["sources"] == [{"sha256": item.sha256, "name": item.name} for item in found.sources]
    assert told["reference"] == {"sha256": found.reference.sha256, "name": found.reference.name}
    assert [told["valid_from"], told["valid_until"]] == [found.valid_from.isoformat(), found.valid_until.isoformat()]
    return True


def test_a_record_is_read_as_it_was_written_and_as_yaml() -> None:
    text = c.dump(RECORD)
    assert c.parse(text.encode()) == RECORD
    assert same(text.encode())


@pytest.mark.parametrize(
    "text",
    ["a\nb", "\ttab", "\u2028", "\x85", "", " ", "\ud800", "x" * 201, "\u202eanna", "\x00", "Anna\u200b Berg",
     "Anna\u034f", "Anna\u3164", "Anna\u115f", "Anna\u1160", "Anna\uffa0", "Anna\u180e", "Anna\u2800"],
)  # fmt: skip
def test_a_text_that_would_be_read_otherwise_is_not_written(text: str) -> None:
    refused(c.UNREADABLE, lambda: c.dump(replace(RECORD, identity=text)))


@pytest.mark.parametrize(
    "text",
    ['"', "\\", "\\n", "#", " # x", ": ", "'", "{}", "[a]", "&a *b", "!!python/object", "%TAG", "---", "null",
     "2026-01-01", "  two  blanks ", "Zoë 😀", "\u200dx"],
)  # fmt: skip
def test_what_means_something_in_yaml_means_itself_in_a_record(text: str) -> None:
    written = c.dump(replace(RECORD, identity=text, purpose=text))
    assert same(written.encode())


ODD: dict[str, Callable[[str], str]] = {
    "nothing": lambda t: "",
    "no text": lambda t: t.replace('"Jo Doe"', '""'),
    "an order": lambda t: t.replace("purpose", "x").replace("recorded_by", "purpose").replace("x:", "recorded_by:"),
    "twice the same key": lambda t: t.replace("purpose:", 'id: "other"\npurpose:'),
    "one key more": lambda t: t + 'note: "x"\n',
    "a second document": lambda t: t + "---\n" + t,
    "an anchor": lambda t: t.replace('id: "', 'id: &a "'),
    "a tag": lambda t: t.replace('id: "', 'id: !!str "'),
    "single quotes": lambda t: t.replace('"Jo Doe"', "'Jo Doe'"),
    "no quotes": lambda t: t.replace('"Jo Doe"', "Jo"),
    "a block": lambda t: t.replace('"Jo Doe"', "|\n  Jo"),
    "a text over two lines": lambda t: t.replace("Jo Doe", "Jo\n  Doe"),
    "an escape": lambda t: t.replace("Jo Doe", "Jo\\x20Doe"),
    "a tab": lambda t: t.replace("purpose: ", "purpose:\t"),
    "Windows lines": lambda t: t.replace("\n", "\r\n"),
    "a byte order mark": lambda t: "\ufeff" + t,
    "another line's end": lambda t: t.replace("Jo Doe", "Jo\u2028Doe"),
    "a list in one line": lambda t: t.replace('may_be_made:\n  - "head"', 'may_be_made: ["head"]\n#'),
    "a use of one's own": lambda t: t.replace('"head"', '"body"'),
    "a use twice": lambda t: t.replace('"face"', '"head"'),
    "a short digest": lambda t: t.replace("a" * 64, "a" * 63),
    "large letters in a digest": lambda t: t.replace("a" * 64, "A" * 64),
    "a path": lambda t: t.replace("b.mp4", "../b.mp4"),
    "no picture": lambda t: t.replace("anna.png", "anna.mp4"),
    "no such day": lambda t: t.replace("2027-01-01", "2027-02-30"),
    "an end before the beginning": lambda t: t.replace("2027-01-01", "2025-01-01"),
    "a day with an hour": lambda t: t.replace("2027-01-01", "2027-01-01T00:00"),
    "other indents": lambda t: t.replace("    name", "   name"),
    "another format": lambda t: t.replace("consent 1", "consent 2"),
    "an id with large letters": lambda t: t.replace("anna-7f3a", "Anna"),
}  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
def test_what_is_not_in_the_one_form_is_no_record(odd: str) -> None:
    text = ODD[odd](c.dump(RECORD))
    assert text != c.dump(RECORD)
    refused(c.UNREADABLE, lambda: c.parse(text.encode()))


def test_comments_blank_lines_and_blanks_at_the_end_are_borne() -> None:
    text = c.dump(RECORD).replace("sources:", "\n# these\n  # two\nsources:   # here") + "\n\n# the end"
    assert same(text.encode())
    assert c.parse(text.encode()) == RECORD


def test_what_our_reader_takes_yaml_takes_alike() -> None:
    """Random changes of records: whatever passes must say the same to both."""
    chance = random.Random(7)
    text = c.dump(RECORD)
    pieces = [
        '"',
        "\\",
        "\n",
        " ",
        "#",
        ":",
        "-",
        "- ",
        "  ",
        "x",
        "0",
        "\t",
        "é",
        "\u2029",
        "'",
        "[]",
        "&a",
        "|",
        "---\n",
    ]
    taken = 0
    for _ in range(4000):
        changed = text
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(changed))
            changed = changed[:at] + chance.choice(pieces) + changed[at + chance.choice([0, 0, 1, 2]) :]
        taken += same(changed.encode())
    assert 100 < taken < 3000


def test_a_list_of_revocations_is_read_as_it_was_written() -> None:
    for ids in ({}, {"anna-1": TODAY, "b": TODAY}):
        made = c.Revocations(7, ids)
        text = c.dump_revocations(made)
        assert c.parse_revocations(text.encode()) == made
        assert len(yaml.safe_load(text)["revoked"]) == len(ids)
    for bad in ("", c.dump(RECORD), text + "x", text.replace("7", "07"), text.replace('"b"', '"anna-1"')):
        refused(c.NO_TRUST, partial(c.parse_revocations, bad.encode()))


@pytest.mark.parametrize("name", ["a\xadb.png", "a\\b.png", "a\udcf6.png", "a\nb.png", "x" * 201, "a/b"])
def test_a_name_that_no_record_can_hold_is_refused_with_a_way_out(name: str) -> None:
    for part in ({"sources": (c.Item("0" * 64, name),)}, {"reference": c.Item("0" * 64, f"{name}.png")}):
        said = refused(c.UNREADABLE, partial(c.dump, replace(RECORD, **part)))
        assert "rename the file" in said or name == "a/b"
        assert "consent new" not in said and said.isprintable()


# -- files -----------------------------------------------------------------------------------------------


def test_a_folders_digest_is_what_sha256sum_says(tmp_path: Path) -> None:
    if not shutil.which("sha256sum"):
        pytest.skip("there is no sha256sum")
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("b.png", "a.png", "B.png", "ä.png", "with blank.png"):
        (folder / name).write_text(name)
    shell = ["sh", "-c", "LC_ALL=C; export LC_ALL; sha256sum -- * | sha256sum"]
    said = subprocess.run(shell, cwd=folder, capture_output=True, text=True, check=True).stdout.split()[0]
    assert c.digest_of(folder) == said
    for name in ("sub", "sub/below"):
        (folder / name).mkdir()
    for name in (".hidden", "sub.png", "sub/c.png", "sub/below/-d.png"):
        (folder / name).write_text(name)
    [line] = [line for line in (CONSENT.parents[3] / "docs/consent.md").read_text().splitlines() if "%P" in line]
    said = subprocess.run(["sh", "-c", line], cwd=folder, capture_output=True, text=True, check=True).stdout.split()[
        0
    ]
    assert c.digest_of(folder) == said
    assert c.digest_of(folder / "a.png") == hashlib.sha256(b"a.png").hexdigest()
    before = c.digest_of(folder)
    (folder / "a.png").rename(folder / "c.png")
    assert c.digest_of(folder) != before


def test_links_pipes_and_empty_folders_have_no_digest(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        refused(c.NOT_ALLOWED, partial(c.digest_of, tmp_path / name), name)
    for name in ("link", "pipe"):
        folder = tmp_path / f"folder of a {name}"
        folder.mkdir()
        (tmp_path / name).rename(folder / name)
        refused(c.NOT_ALLOWED, partial(c.digest_of, folder))
    (tmp_path / "empty").mkdir()
    refused(c.OTHER_FILE, lambda: c.digest_of(tmp_path / "empty"))


# -- whether it holds ------------------------------------------------------------------------------------


def test_a_signed_record_holds(trust: Trust, source: Path) -> None:
    path = record(trust, source)
    found = c.verified(path, "a")
    assert found.signer == "signer@test" and found.record.may_be_made == ("head", "face")
    assert found.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.covers(c.digest_of(source)) and not found.covers("0" * 64)


def test_each_thing_that_a_record_lacks_has_its_code_and_sentence(trust: Trust, source: Path) -> None:
    path = record(trust, source)
    refused(20, lambda: c.verified(path.with_name("none.yml"), "a"), "side A", "faceswap-oci consent new")
    spaced = record(trust, source, sign=False).rename(path.with_name("my record.yml"))
    refused(20, lambda: c.verified(spaced, "b"), "side B", f"`faceswap-oci consent sign '{spaced}'`")
    refused(22, lambda: c.verified(record(trust, source, valid=("2020-01-01", "2021-01-01")), "a"), "2021-01-01")
    refused(23, lambda: c.verified(record(trust, source, valid=("2090-01-01", "2091-01-01")), "a"), "2090-01-01")
    refused(26, lambda: c.verified(record(trust, source, key=trust.stranger), "a"), str(path.parent.parent), "trust")
    refused(28, lambda: c.verified(record(trust, source, "a"), "b"), "head", "side B")
    gone = record(trust, source)
    trust.reference(gone).unlink()
    refused(20, lambda: c.verified(gone, "a"), "picture", "beside the record")
    trust.reference(gone).write_text("another")
    refused(27, lambda: c.verified(gone, "a"), "picture")
    unreadable = record(trust, source)
    unreadable.write_text("id: anna\n")
    trust.sign(unreadable, trust.signer, c.RECORD_NAMESPACE)
    refused(21, lambda: c.verified(unreadable, "a"), "line 1")
    trust.revoke(path)
    refused(24, lambda: c.verified(path, "a"), c.parse(path.read_bytes()).id, "revoked on")


def test_the_last_day_is_included_and_days_are_those_of_utc(trust: Trust, source: Path) -> None:
    path = record(trust, source, valid=("2026-01-01", "2026-11-23"))
    assert c.verified(path, "a", today=TODAY)
    refused(22, lambda: c.verified(path, "a", today=TODAY + datetime.timedelta(days=1)))
    refused(23, lambda: c.verified(path, "a", today=datetime.date(2025, 12, 31)))
    # No time zone of the environment has a say.
    old = record(trust, source, valid=("2020-01-01", str(datetime.datetime.now(datetime.UTC).date())))
    words = [
        sys.executable,
        "-c",
        UNDER_TRUST,
        str(CONSENT.parent),
        str(trust.trusted),
        "check",
        "--record-a",
        str(old),
    ]
    for zone in ("XXX-23", "XXX+23"):
        done = subprocess.run(words, env={**os.environ, "TZ": zone}, capture_output=True, text=True)
        assert done.returncode == 0, done


UNDER_TRUST = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
import consent
consent.SYSTEM_TRUST = pathlib.Path(sys.argv[2])
sys.argv[1:3] = []
sys.exit(consent.main())
"""


def test_every_flipped_byte_of_record_signature_and_picture_is_seen(trust: Trust, source: Path) -> None:
    path = record(trust, source)
    chance = random.Random(1)
    text = path.read_bytes()
    for at in range(0, len(text), 7):
        path.write_bytes(text[:at] + bytes([text[at] ^ (1 << chance.randrange(8))]) + text[at + 1 :])
        refused(25, lambda: c.verified(path, "a"))
    path.write_bytes(text)
    picture = trust.reference(path)
    picture.write_bytes(b"b" + picture.read_bytes()[1:])
    refused(27, lambda: c.verified(path, "a"))
    # Parts of the armour mean nothing (white space, unused bits): what counts is whether the signature fits.
    signature = path.with_name(path.name + ".sig")
    whole = signature.read_bytes()
    signature.write_bytes(whole[: len(whole) // 2])
    refused(25, lambda: c.verified(path, "a"))


def test_a_signature_for_another_purpose_or_record_is_none(trust: Trust, source: Path) -> None:
    path, other = record(trust, source), record(trust, source)
    trust.sign(path, trust.signer, "file")
    refused(25, lambda: c.verified(path, "a"))
    shutil.copy(f"{other}.sig", f"{path}.sig")
    refused(25, lambda: c.verified(path, "a"))
    (trust.trusted / "allowed_signers").write_text(
        trust.allowed(trust.signer).replace("@test ", '@test namespaces="file" ')
    )
    refused(26, lambda: c.verified(other, "a"))


def test_a_key_that_is_trusted_for_something_else_first_is_trusted_nevertheless(trust: Trust, source: Path) -> None:
    path, line = record(trust, source), trust.allowed(trust.signer)
    other = line.replace("signer@test ", 'git@test,"!x@test" namespaces="git" ')
    (trust.trusted / "allowed_signers").write_text(f"# for commits\n\n{other}{line}")
    assert c.verified(path, "a").signer == "signer@test"
    named = line.replace("signer@test ", '"jo@test,signer@test" ')
    (trust.trusted / "allowed_signers").write_text(f"{other}{named}")
    assert c.verified(path, "a").signer == "jo@test"


def test_one_person_cannot_be_on_both_sides(trust: Trust, source: Path, tmp_path: Path) -> None:
    both = record(trust, source)
    refused(28, lambda: c.pair(both, both), "one person")
    other = tmp_path / "other.png"
    other.write_text("another picture")
    again = trust.record(source, "b", reference=other, identity="Anna")
    first = record(trust, source, identity="  ANNA ")
    refused(28, lambda: c.pair(first, again), "one person")
    assert set(c.pair(both, again)) == {"a", "b"}
    same_picture = trust.record(source, "b", reference=trust.reference(both), identity="Somebody else")
    refused(28, lambda: c.pair(both, same_picture), "the same reference picture")


@pytest.mark.parametrize(
    ("one", "other"),
    [("Zo\u00eb", "Zoe\u0308"), ("Anna Berg", "\uff21nna\u00a0Berg"), ("Anna", "An\u200dna"), ("Anna", "Anna\ufe0f"),
     ("Stra\u00dfe", "STRASSE"), ("\u03b1\u0345", "\u0391\u0399")],
)  # fmt: skip
def test_one_person_in_two_spellings_cannot_be_on_both_sides(one: str, other: str) -> None:
    first, second = (
        c.Consent(replace(RECORD, id=identity[0], identity=identity[1], reference=c.Item(identity[0] * 64, "r.png")),
                  "", "", Path("r.png"))
        for identity in (("a", one), ("b", other))
    )  # fmt: skip
    refused(28, lambda: c.see_that_they_differ(first, second), "one person")
    third = replace(second, record=replace(second.record, identity=f"{other} Lind"))
    c.see_that_they_differ(first, third)


def test_nobody_but_the_users_own_folder_says_whom_to_trust(
    trust: Trust, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = record(trust, source, key=trust.stranger)
    home = tmp_path / "home"
    for folder in (home / ".config" / "faceswap-oci", home / "faceswap-oci", tmp_path / "bin"):
        folder.mkdir(parents=True)
        (folder / "allowed_signers").write_text(trust.allowed(trust.stranger))
    false = tmp_path / "bin" / "ssh-keygen"
    false.write_text("#!/bin/sh\necho anybody@test\n")
    false.chmod(0o755)
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    refused(26, lambda: c.verified(path, "a"))
    (trust.trusted / "allowed_signers").unlink()
    monkeypatch.setattr(c, "OWN_TRUST", "nowhere/at/all")
    refused(20, lambda: c.verified(path, "a"), "nobody is trusted", "names nobody")


def test_a_folder_that_others_may_write_to_says_nothing(trust: Trust, source: Path) -> None:
    path = record(trust, source)
    for place, mode in ((trust.trusted / "allowed_signers", 0o666), (trust.trusted, 0o777)):
        before = place.stat().st_mode
        place.chmod(mode)
        refused(29, lambda: c.verified(path, "a"), "chmod go-w")
        place.chmod(before)
    assert c.verified(path, "a")


def test_the_demos_key_signs_for_the_demos_records_alone(
    trust: Trust, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = record(trust, source, key=trust.stranger)
    monkeypatch.setattr(c, "DEMO_SIGNER", trust.stranger.with_name("stranger.pub").read_text().strip())
    refused(26, lambda: c.verified(path, "a"))
    monkeypatch.setattr(c, "DEMO_RECORDS", frozenset({hashlib.sha256(path.read_bytes()).hexdigest()}))
    assert c.verified(path, "a").signer == "demo@faceswap-oci"
    trust.sign(path, trust.signer, c.RECORD_NAMESPACE)
    refused(26, lambda: c.verified(path, "a"))  # no other key signs for them


# -- revocations -----------------------------------------------------------------------------------------


def signed_list(trust: Trust, folder: Path, serial: int, *ids: str, key: Path | None = None) -> tuple[bytes, bytes]:
    folder.mkdir(exist_ok=True)
    path = folder / "revoked.yml"
    path.write_text(c.dump_revocations(c.Revocations(serial, dict.fromkeys(ids, TODAY))))
    trust.sign(path, key or trust.signer, c.REVOCATIONS_NAMESPACE)
    return path.read_bytes(), path.with_name("revoked.yml.sig").read_bytes()


def test_a_newer_list_is_kept_and_an_older_one_never_takes_its_place(trust: Trust, tmp_path: Path) -> None:
    first = signed_list(trust, tmp_path / "1", 1, "anna")
    second = signed_list(trust, tmp_path / "2", 2, "anna", "berta")
    assert c.read_revocations().serial == 0
    assert c.keep_revocations(*first) and not c.keep_revocations(*first)
    assert c.keep_revocations(*second)
    assert not c.keep_revocations(*first)
    assert set(c.read_revocations().ids) == {"anna", "berta"}
    assert (trust.trusted / "revoked.yml").stat().st_mode & 0o777 == 0o644


def test_lists_that_two_people_wrote_on_are_refused_until_one_has_all(trust: Trust, tmp_path: Path) -> None:
    assert c.keep_revocations(*signed_list(trust, tmp_path / "1", 3, "anna", "berta"))
    for serial in (2, 3, 4):
        other = signed_list(trust, tmp_path / "2", serial, "anna", "clara")
        refused(29, partial(c.keep_revocations, *other), "have parted", "berta" if serial == 4 else "clara", "revoke")
    assert set(c.read_revocations().ids) == {"anna", "berta"}
    assert c.keep_revocations(*signed_list(trust, tmp_path / "3", 5, "anna", "berta", "clara"))


def test_a_list_of_a_stranger_is_not_kept(trust: Trust, tmp_path: Path) -> None:
    own = signed_list(trust, tmp_path / "1", 9, key=trust.stranger)
    refused(29, lambda: c.keep_revocations(*own))
    text, signature = signed_list(trust, tmp_path / "2", 3)
    refused(29, lambda: c.keep_revocations(text.replace(b"3", b"4"), signature))
    assert not (trust.trusted / "revoked.yml").exists()


def test_a_list_that_does_not_fit_its_signature_stops_everything_until_it_is_mended(
    trust: Trust, source: Path, tmp_path: Path
) -> None:
    path = record(trust, source)
    c.keep_revocations(*signed_list(trust, tmp_path / "1", 2))
    kept = trust.trusted / "revoked.yml"
    kept.write_text(kept.read_text().replace("2", "3"))
    refused(29, lambda: c.verified(path, "a"), "revoked.yml")
    refused_serial = signed_list(trust, tmp_path / "2", 2)
    assert not c.keep_revocations(*refused_serial)
    assert c.keep_revocations(*signed_list(trust, tmp_path / "3", 3))  # a kill between two files is mended
    assert c.verified(path, "a")
    (trust.trusted / "revoked.yml.sig").unlink()
    refused(29, lambda: c.verified(path, "a"), "its signature", "where that was here, move both away")


@pytest.mark.parametrize("left", [0, 20, 150])
def test_an_older_list_never_takes_the_place_of_one_that_was_cut_off(trust: Trust, tmp_path: Path, left: int) -> None:
    newer = signed_list(trust, tmp_path / "1", 2, "anna")
    c.keep_revocations(*newer)
    kept = trust.trusted / "revoked.yml"
    kept.write_bytes(newer[0][:left])
    for lists in (signed_list(trust, tmp_path / "2", 1), newer):
        refused(29, partial(c.keep_revocations, *lists), str(kept), "put the newest list there")
    assert kept.read_bytes() == newer[0][:left]
    kept.write_bytes(newer[0])
    assert not c.keep_revocations(*newer)


# -- the program -----------------------------------------------------------------------------------------


def test_the_program_answers_in_json_and_ends_with_the_code(trust: Trust, source: Path, tmp_path: Path) -> None:
    path = record(trust, source)

    def ask(*words: str) -> tuple[int, Any]:
        command = [sys.executable, "-c", UNDER_TRUST, str(CONSENT.parent), str(trust.trusted), "check", *words]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode, json.loads(done.stdout)

    code, answer = ask("--record-a", str(path), "--source-a", str(source))
    assert code == 0 and set(answer) == {"a"} and answer["a"]["source"] == c.digest_of(source)
    (tmp_path / "other.mp4").write_text("another")
    code, answer = ask("--record-a", str(path), "--source-a", str(tmp_path / "other.mp4"))
    assert code == answer["code"] == 27 and "other.mp4" in answer["error"]
    code, answer = ask("--record-a", str(path), "--record-b", str(path))
    assert code == answer["code"] == 28
