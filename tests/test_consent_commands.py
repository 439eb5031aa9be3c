"""`faceswap-oci consent` and `audit`, as a person and as a program meet them."""

import base64
import datetime
import json
import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pexpect
import pytest
from PIL import Image
from trust import Trust, what_is_missing

from faceswap_oci import cli
from faceswap_oci.play import Failure, Order, Outcome, UsageError
from faceswap_oci.record_files import command
from faceswap_oci.shared import collection_module, role_module
from faceswap_oci.signers import public_line

ROOT = Path(__file__).resolve().parents[1]
CLIP = ROOT / "demo" / "clipA.mp4"
TODAY = datetime.datetime.now(datetime.UTC).date()

# The wrapper in a process of its own, where the account database knows another home.
PROGRAM = """
import os, pwd, sys
from pathlib import Path
root, home = Path(sys.argv[1]), sys.argv[2]
real = pwd.getpwuid
pwd.getpwuid = lambda uid: pwd.struct_passwd((*real(uid)[:5], home, real(uid)[6]))
sys.path.insert(0, str(root / "src"))
from faceswap_oci.cli import main
from faceswap_oci.shared import role_module
role_module(root, "consent.py").SYSTEM_TRUST = Path("/nowhere")
sys.exit(main(sys.argv[3:]))
"""


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = role_module(ROOT, "consent.py")
    monkeypatch.setattr(module, "SYSTEM_TRUST", Path("/nowhere"))
    return module


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gate: ModuleType) -> Path:
    """The home of a person who has an SSH key without a passphrase, and trusts nobody yet."""
    folder = tmp_path / "a home"
    (folder / ".ssh").mkdir(parents=True)
    make_key(folder / ".ssh" / "id_ed25519")
    real = pwd.getpwuid(os.getuid())
    account = pwd.struct_passwd((*real[:4], "Jo Doe,,,", str(folder), real[6]))
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: account)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.chdir(ROOT)
    return folder


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    (tmp_path / "a folder").mkdir()
    return Path(shutil.copy(CLIP, tmp_path / "a folder" / "anna.mp4"))


@pytest.fixture
def record(home: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A record that its signer's own key signed, which is trusted."""
    path = clip.with_name("anna.consent.yml")
    assert new(clip) == 0
    assert cli.main(["consent", "sign", str(path), "--trust"]) == 0
    capsys.readouterr()
    return path


def make_key(path: Path, passphrase: str = "") -> Path:
    words = ["-q", "-t", "ed25519", "-N", passphrase, "-C", "jo@studio", "-f", str(path)]
    subprocess.run(["ssh-keygen", *words], check=True)
    return path


def new(*words: str | Path, **given: str) -> int:
    options = {"identity": "Anna Example", "purpose": "Short film", "may": "head"} | given
    named = [word for name, value in options.items() for word in (f"--{name}", value) if value]
    return cli.main(["consent", "new", *map(str, words), *named])


def read(path: Path, gate: ModuleType) -> Any:
    return gate.parse(path.read_bytes())


def trusted(home: Path) -> Path:
    return home / ".config" / "faceswap-oci" / "allowed_signers"


# --- new ---------------------------------------------------------------------------------------------------


def test_a_record_says_what_was_given_and_the_rest_by_itself(
    home: Path, clip: Path, gate: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert new(clip) == 0
    path = clip.with_name("anna.consent.yml")
    made = read(path, gate)
    assert (made.identity, made.purpose, made.may_be_made) == ("Anna Example", "Short film", ("head",))
    assert made.recorded_by == "Jo Doe"
    assert [(item.name, item.sha256) for item in made.sources] == [("anna.mp4", gate.digest_of(clip))]
    assert made.reference == gate.Item(gate.digest_of(clip.with_name("anna.reference.png")), "anna.reference.png")
    assert made.valid_from == TODAY
    assert 364 <= (made.valid_until - TODAY).days <= 366
    assert "anna" not in made.id.lower(), "the id stands in every result"
    assert f"faceswap-oci consent sign '{path}'" in capsys.readouterr().out, "the path has a space"


def test_the_picture_is_a_frame_of_the_middle_or_of_a_given_second(home: Path, clip: Path) -> None:
    with av.open(str(clip)) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    wanted = [([], 63), (["--at", "0"], 0), (["--at", "4.0"], 100)]
    for number, (words, place) in enumerate(wanted):
        assert new(clip, "-o", clip.with_name(f"r{number}.yml"), *words) == 0
        found = np.asarray(Image.open(clip.with_name(f"r{number}.reference.png")))
        assert np.array_equal(found, frames[place]), words


def test_a_picture_of_ones_own_is_upright_and_without_what_the_camera_wrote(
    home: Path, clip: Path, gate: ModuleType
) -> None:
    image = Image.new("RGB", (3000, 1000), "red")
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Camera of Anna"  # turned, maker
    image.save(clip.with_name("own.jpg"), exif=exif)
    assert new(clip, reference=str(clip.with_name("own.jpg"))) == 0
    made = clip.with_name("anna.reference.png")
    with Image.open(made) as picture:
        assert (picture.size, picture.format) == ((533, 1600), "PNG")
    assert b"Camera" not in made.read_bytes()


def test_a_folder_of_images_is_a_source(home: Path, tmp_path: Path, gate: ModuleType) -> None:
    folder = tmp_path / "stills"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (10, 10), (number, 0, 0)).save(folder / f"{number}.png")
    assert new(folder) == 0
    made = read(tmp_path / "stills.consent.yml", gate)
    assert made.sources[0].sha256 == gate.digest_of(folder)
    assert Image.open(tmp_path / "stills.reference.png").getpixel((0, 0)) == (1, 0, 0)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"identity": "", "may": ""}, "There is no terminal to ask on, so say it with --identity, --may."),
        ({"until": "2020-01-01"}, "--until 2020-01-01 lies before"),
        ({"reference": "/etc/hostname"}, "/etc/hostname cannot be read as a picture"),
        ({"output": "nowhere/anna.yml"}, "There is no folder nowhere: make it, or name another with --output."),
        ({"at": "600"}, "has no frame at second 600: it is 5.0 s long."),
        ({"purpose": "two\nlines"}, "--purpose cannot be written: Give it in 200 letters at most, on one line."),
    ],
)
def test_what_cannot_be_written_is_one_sentence(
    home: Path, clip: Path, given: dict[str, str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert new(clip, **given) in (2, 21)
    told = capsys.readouterr().err
    assert sentence in told
    assert len(told.splitlines()) == 1
    assert [path.name for path in clip.parent.iterdir()] == ["anna.mp4"]


@pytest.mark.parametrize("name", [b"an\xadna.mp4", b"an\xc2\xadna.mp4", b"an\\na.mp4", b"a" * 205 + b".mp4"])
def test_a_source_whose_name_no_record_can_hold_is_to_be_renamed(
    home: Path, clip: Path, name: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = clip.rename(clip.with_name(os.fsdecode(name)))
    assert new(odd) == 21
    told = capsys.readouterr()
    assert "rename the file" in told.err and "consent new" not in told.err
    assert len(told.err.splitlines()) == 1 and "Reading" not in told.out
    assert list(clip.parent.iterdir()) == [odd]


def test_a_folder_whose_name_is_no_text_is_no_hindrance(home: Path, clip: Path) -> None:
    """In a process of its own: what stands for stdout in a test bears any text."""
    odd = clip.parent.rename(clip.parent.with_name(os.fsdecode(b"f\xf6lder")))
    words = ["consent", "new", str(odd / clip.name), "--identity", "x", "--purpose", "x", "--may", "head"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT), str(home), *words], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "f\\udcf6lder" in done.stdout and (odd / "anna.consent.yml").is_file()


@pytest.mark.parametrize(("name", "cause"), [("text.mp4", "cannot be read as a video"), ("gone.mp4", "There is no")])
def test_a_source_that_is_none_is_one_sentence(
    home: Path, tmp_path: Path, name: str, cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    assert new(tmp_path / name) == 2
    assert cause in capsys.readouterr().err


def test_a_record_is_not_written_over_and_with_force_its_signature_goes(
    record: Path, clip: Path, gate: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    before = record.read_bytes()
    assert new(clip) == 2
    assert "--force" in capsys.readouterr().err
    assert record.read_bytes() == before
    assert new(clip, "--force", identity="Anna E.") == 0
    assert read(record, gate).identity == "Anna E."
    assert not record.with_name(f"{record.name}.sig").exists()


def test_written_anew_a_record_keeps_what_is_not_said(
    record: Path, clip: Path, gate: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert new(clip, "--force", may="both", until="2099-12-31") == 0
    capsys.readouterr()
    before, picture = read(record, gate), clip.with_name("anna.reference.png").read_bytes()
    assert cli.main(["consent", "new", "--force", "--at", "1.5", str(clip)]) == 0
    after = read(record, gate)
    assert (after.identity, after.purpose, after.may_be_made, after.valid_until, after.recorded_by) == (
        *(before.identity, before.purpose, before.may_be_made, before.valid_until),
        before.recorded_by,
    )
    assert after.id != before.id and clip.with_name("anna.reference.png").read_bytes() != picture
    told = capsys.readouterr().out
    assert "Kept of anna.consent.yml as it was: identity Anna Example," in told
    assert f"faceswap-oci consent new --force --at SECOND {shlex.quote(str(clip))}\n" in told
    record.write_text("no record")
    assert cli.main(["consent", "new", "--force", str(clip)]) == 2, "nothing to keep, and nobody to ask"


# --- sign, trust -------------------------------------------------------------------------------------------


def test_a_signed_record_of_a_trusted_key_holds(record: Path, home: Path, gate: ModuleType) -> None:
    consent = gate.verified(record, "a")
    assert consent.signer == "jo@studio"
    assert trusted(home).stat().st_mode & 0o777 == 0o644
    assert trusted(home).parent.stat().st_mode & 0o777 == 0o700


def test_a_key_that_is_not_trusted_signs_and_is_told_so(
    home: Path, clip: Path, gate: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    new(clip)
    path = clip.with_name("anna.consent.yml")
    assert cli.main(["consent", "sign", str(path)]) == 0
    told = capsys.readouterr().out
    assert "the record does not count yet" in told
    public = home / ".ssh" / "id_ed25519.pub"
    assert f"faceswap-oci consent trust '{public}'" in told
    with pytest.raises(gate.ConsentError):
        gate.verified(path, "a")
    assert not trusted(home).exists(), "nobody is trusted without being told to"
    assert cli.main(["consent", "trust", str(public), "--name", "anna"]) == 0
    assert gate.verified(path, "a").signer == "anna"


def test_signing_again_replaces_the_signature_without_a_question(record: Path, home: Path, gate: ModuleType) -> None:
    make_key(home / "other")
    assert cli.main(["consent", "sign", str(record), "--key", str(home / "other"), "--trust"]) == 0
    assert len(trusted(home).read_text().splitlines()) == 2
    gate.verified(record, "a")


def test_a_key_with_a_passphrase_does_not_wait_where_nobody_can_type(
    home: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new(clip)
    capsys.readouterr()
    make_key(home / "locked", "secret")
    path = clip.with_name("anna.consent.yml")
    assert cli.main(["consent", "sign", str(path), "--key", str(home / "locked")]) == 2
    told = capsys.readouterr().err
    assert "run this on a terminal, or `ssh-add" in told
    assert len(told.splitlines()) == 1
    assert not path.with_name(f"{path.name}.sig").exists()


def test_an_agent_signs_with_a_key_whose_private_half_is_not_here(
    home: Path, clip: Path, gate: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    new(clip)
    said = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
    values = dict(part.split(";")[0].split("=") for part in said.splitlines() if "=" in part)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", values["SSH_AUTH_SOCK"])
        key = home / ".ssh" / "id_ed25519"
        subprocess.run(["ssh-add", "-q", key], check=True)
        key.unlink()
        path = clip.with_name("anna.consent.yml")
        assert cli.main(["consent", "sign", str(path), "--trust"]) == 0
        gate.verified(path, "a")
    finally:
        os.kill(int(values["SSH_AGENT_PID"]), 15)


def test_without_any_key_the_way_to_one_is_told(home: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new(clip)
    shutil.rmtree(home / ".ssh")
    assert cli.main(["consent", "sign", str(clip.with_name("anna.consent.yml"))]) == 2
    assert "make one with `ssh-keygen -t ed25519`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words", "sentence"),
    [
        ("-----BEGIN OPENSSH PRIVATE KEY-----", [], "is a private key"),
        ("ssh-ed25519 AAAA", [], "holds no public key"),
        ("", [], "holds no public key"),
        (None, ["--name", "*"], "'*' cannot name a signer"),
        (None, ["--name", "a,b"], "cannot name a signer"),
        (None, ["--name", "a b"], "cannot name a signer"),
    ],
)
def test_only_a_public_key_of_one_person_is_trusted(
    home: Path,
    tmp_path: Path,
    content: str | None,
    words: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "key.pub"
    path.write_text((home / ".ssh" / "id_ed25519.pub").read_text() if content is None else content)
    assert cli.main(["consent", "trust", str(path), *words]) == 2
    assert sentence in capsys.readouterr().err
    assert not trusted(home).exists()


def test_a_key_is_trusted_for_consent_alone_and_once(
    home: Path, gate: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    public = home / ".ssh" / "id_ed25519.pub"
    trusted(home).parent.mkdir(parents=True)
    trusted(home).write_text("# mine")
    for _ in range(2):
        assert cli.main(["consent", "trust", str(public)]) == 0
    assert "Trusted already" in capsys.readouterr().out
    [first, line] = trusted(home).read_text().splitlines()
    assert first == "# mine"
    assert line.startswith('jo@studio namespaces="consent@faceswap-oci,revocations@faceswap-oci" ssh-ed25519 ')


@pytest.mark.parametrize(
    ("options", "already"),
    [
        ('namespaces="git" ', False),
        ('namespaces="consent@faceswap-oci" ', False),
        ("cert-authority ", False),
        ('valid-after="20200101",namespaces="git,*@faceswap-oci" ', True),
        ("", True),
    ],
)
def test_a_key_that_is_listed_for_something_else_is_not_trusted_already(
    record: Path, home: Path, options: str, already: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    public = home / ".ssh" / "id_ed25519.pub"
    kind, key, _ = public.read_text().split()
    trusted(home).write_text(f"somebody@else {options}{kind} {key} a comment\n")
    assert cli.main(["consent", "trust", str(public)]) == 0
    assert ("Trusted already" in capsys.readouterr().out) == already
    assert len(trusted(home).read_text().splitlines()) == (1 if already else 2)
    assert cli.main(["consent", "check", str(record)]) == 0


def test_the_environment_does_not_choose_whom_to_trust(
    record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger = make_key(tmp_path / "stranger")
    assert cli.main(["consent", "sign", str(record), "--key", str(stranger)]) == 0
    folder = tmp_path / "elsewhere" / ".config" / "faceswap-oci"
    folder.mkdir(parents=True)
    (folder / "allowed_signers").write_text(f"x {stranger.with_suffix('.pub').read_text()}")
    program = tmp_path / "bin" / "ssh-keygen"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder.parent))
    monkeypatch.setenv("PATH", str(program.parent))
    assert cli.main(["consent", "check", str(record)]) == 26


# --- check -------------------------------------------------------------------------------------------------


def test_check_shows_a_record_that_holds(record: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["consent", "check", str(record), "--source", str(clip)]) == 0
    told = capsys.readouterr().out
    for part in (
        "Anna Example",
        "Short film",
        "side A",
        "Jo Doe",
        "jo@studio",
        "anna.mp4: the one beside the record",
    ):
        assert part in told
    clip.write_bytes(b"another")
    assert cli.main(["consent", "check", str(record)]) == 0
    assert "NOT the one beside the record" in capsys.readouterr().out
    assert cli.main(["consent", "check", str(record), "--source", str(clip)]) == 27
    clip.unlink()
    assert cli.main(["consent", "check", str(record)]) == 0
    assert "not looked at" in capsys.readouterr().out


def test_each_reason_has_its_code(record: Path, clip: Path, home: Path, gate: ModuleType) -> None:
    def check() -> int:
        return cli.main(["consent", "check", str(record)])

    text, signature = record.read_bytes(), record.with_name(f"{record.name}.sig")
    for since, until, code in (("2020-01-01", "2020-01-02", 22), ("2090-01-01", "2091-01-01", 23)):
        assert new(clip, "--force", "--from", since, until=until) == 0
        assert cli.main(["consent", "sign", str(record)]) == code
        assert check() == code
    record.write_bytes(text)
    assert check() == 25
    record.write_text("no: record")
    assert check() == 21
    record.write_bytes(text)
    signature.unlink()
    assert check() == 20
    assert cli.main(["consent", "sign", str(record)]) == 0
    record.with_name("anna.reference.png").write_bytes(CLIP.read_bytes())
    assert cli.main(["consent", "sign", str(record)]) == 27
    assert check() == 27
    trusted(home).write_text("")
    assert check() == 20
    trusted(home).chmod(0o666)
    assert check() == 29
    assert cli.main(["consent", "check", str(record.with_name("gone.yml"))]) == 20


def test_two_records_of_one_person_are_not_for_one_swap(record: Path, clip: Path) -> None:
    other = clip.with_name("other.yml")
    assert new(clip, "-o", other, may="face") == 0
    assert cli.main(["consent", "sign", str(other)]) == 0
    assert cli.main(["consent", "check", str(record), str(other)]) == 28


def test_two_records_of_the_same_files_are_not_for_one_swap(
    record: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = clip.with_name("other.yml")
    assert new(clip, "-o", other, "--at", "1", may="face", identity="Berta") == 0
    assert cli.main(["consent", "sign", str(other)]) == 0
    assert cli.main(["consent", "check", str(record), str(other)]) == 27
    assert "Both are for the same files: a swap needs a video of each." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("first", "second", "code", "said"),
    [
        ("head", "face", 0, "They may go into one swap: A = {0}, B = {1}.\n"),
        ("face", "head", 0, "They may go into one swap: A = {1}, B = {0}.\n"),
        ("face", "both", 0, "They may go into one swap: A = {1}, B = {0}.\n"),
        ("both", "both", 0, "They may go into one swap: A = {0}, B = {1}, or the other way round.\n"),
        ("face", "face", 28, "Both are for the face alone: one of them must allow the head (side A).\n"),
        ("head", "head", 28, "Both are for the head alone: one of them must allow the face (side B).\n"),
    ],
)
def test_of_two_records_each_takes_the_side_that_it_allows(
    record: Path, clip: Path, first: str, second: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other, source = clip.with_name("other.yml"), clip.with_name("berta.mp4")
    source.write_bytes(clip.read_bytes() + b"\0\0\0\x08free")  # of an mp4, a box that says nothing
    assert new(clip, "--force", may=first) == 0
    assert new(source, "-o", other, "--at", "1", may=second, identity="Berta") == 0
    for path in (record, other):
        assert cli.main(["consent", "sign", str(path)]) == 0
    capsys.readouterr()
    assert cli.main(["consent", "check", str(record), str(other)]) == code
    told = capsys.readouterr()
    assert (told.err if code else told.out).endswith(said.format(record, other))


def test_where_there_is_no_job_no_side_is_spoken_of(
    record: Path, clip: Path, gate: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*words: str) -> str:
        assert cli.main(["consent", *words]) > 2
        told = capsys.readouterr()
        assert "of side" not in told.out + told.err
        return told.out + told.err

    identifier = read(record, gate).id
    other = clip.with_name("other.mp4")
    other.write_bytes(b"another")
    assert f"Consent {identifier} is not for {other}" in refused("check", "--source", str(other), str(record))
    record.with_name("anna.reference.png").unlink()
    assert f"The reference picture of consent {identifier} (" in refused("check", str(record))
    assert new(clip, "--force", "--from", "2020-01-01", until="2020-01-02") == 0
    assert "It has expired already, on 2020-01-02" in capsys.readouterr().out
    assert "The signature of the consent is missing" in refused("check", str(record))
    assert "has expired: it was valid until 2020-01-02" in refused("sign", str(record))
    record.write_text(record.read_text().replace("Anna", "Berta"))
    assert f"The consent ({record}) was altered" in refused("check", str(record))


def test_whom_the_reader_left_ends_quietly(record: Path, home: Path) -> None:
    check = ["consent", "check", str(record)]
    for words, unbuffered in ((check, ""), (check, "1"), (["audit", "verify"], ""), (["verify", str(record)], "")):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(ROOT), str(home), *words],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(writer)
        assert (done.returncode, done.stderr) == (141, ""), words


# --- on a terminal -----------------------------------------------------------------------------------------


@pytest.fixture
def terminal(home: Path, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Runs the wrapper on a terminal of its own."""
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    begun = []

    def begin(*words: str) -> Any:
        environment = {**os.environ, "TERM": "xterm", "HOME": "/nowhere"}
        arguments = [str(program), str(ROOT), str(home), "consent", *words]
        child = pexpect.spawn(sys.executable, arguments, cwd=str(ROOT), env=environment, encoding="utf-8", timeout=30)
        begun.append(child)
        return child

    yield begin
    for child in begun:
        child.close(force=True)


def end_of(child: Any) -> str:
    child.expect(pexpect.EOF)
    child.wait()
    return str(child.before)


def test_a_minute_from_nothing_to_a_record_that_holds(
    terminal: Callable[..., Any], home: Path, clip: Path, gate: ModuleType
) -> None:
    shutil.rmtree(home / ".ssh")
    (home / ".ssh").mkdir()
    make_key(home / ".ssh" / "id_ed25519", "secret")
    child = terminal("new", str(clip))
    for question, answer in (
        ("Who is it", ""),
        ("An answer is needed", "Anna Example"),
        ("made for", "Short film"),
        ("Number", "4"),
        ("Type one of 1, 2, 3, head, face, both", "Both"),
        (rf"which day \[{TODAY.year + 1}-", "2020-01-01"),
        ("lies before", "tomorrow"),
        ("write it as", ""),
        ("Who records this", "Ida"),
    ):
        child.expect(question)
        child.expect(": ")
        child.sendline(answer)
    assert "consent sign" in end_of(child)
    assert child.exitstatus == 0
    path = clip.with_name("anna.consent.yml")
    made = read(path, gate)
    assert (made.may_be_made, made.recorded_by, made.valid_until.year) == (("head", "face"), "Ida", TODAY.year + 1)

    child = terminal("sign", str(path))
    child.expect("passphrase.*: ")
    child.sendline("secret")
    child.expect("Nobody is trusted to sign consent on this machine yet")
    child.expect("from now on.*: ")
    child.sendline("")
    told = end_of(child)
    assert child.exitstatus == 0, told
    assert f'faceswap_run_consent_a: "{path}"' in told
    assert f'faceswap_run_consent_b: "{path}"' in told
    gate.verified(path, "a")


def test_no_is_an_answer(terminal: Callable[..., Any], home: Path, clip: Path) -> None:
    new(clip)
    child = terminal("sign", str(clip.with_name("anna.consent.yml")))
    child.expect("from now on.*: ")
    child.sendline("n")
    assert "does not count yet" in end_of(child)
    assert not trusted(home).exists()


@pytest.mark.parametrize(("key", "code"), [("\x03", 130), ("\x04", 2)])
def test_who_goes_away_leaves_nothing_behind(terminal: Callable[..., Any], clip: Path, key: str, code: int) -> None:
    child = terminal("new", str(clip))
    child.expect("Who is it.*: ")
    child.send(key)
    told = end_of(child)
    assert child.exitstatus == code, told
    assert "Traceback" not in told
    assert [path.name for path in clip.parent.iterdir()] == ["anna.mp4"]


# --- revoke ------------------------------------------------------------------------------------------------


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[Order]:
    """What was played, in place of playing it; `far` is out of reach."""
    orders: list[Order] = []

    def play(order: Order, *_: object) -> Outcome:
        orders.append(order)
        lost = Failure("far", "Delete", "Look at the host", "Connection refused")
        return Outcome("unreachable", 4, failures=[lost]) if "far," in order.inventory else Outcome("ok", 0)

    monkeypatch.setattr(cli, "play", play)
    return orders


def test_a_revoked_record_is_void_and_everything_of_it_is_told(
    record: Path,
    home: Path,
    tmp_path: Path,
    gate: ModuleType,
    played: list[Order],
    capsys: pytest.CaptureFixture[str],
) -> None:
    identifier = read(record, gate).id
    audit = collection_module(ROOT, "audit_log")
    for name, ids in (("kept", [identifier, "x"]), ("gone", [identifier]), ("other", ["x"])):
        (tmp_path / name).touch()
        consents: Mapping[str, Any] = {side: {"id": one} for side, one in zip("ab", ids, strict=False)}
        outputs = {str(tmp_path / name): "0" * 64}
        audit.append({"event": "released", "job": f"job-{name}", "consents": consents, "outputs": outputs})
    (tmp_path / "gone").unlink()
    (tmp_path / "gone.provenance.json").touch()
    assert cli.main(["consent", "revoke", str(record), "-i", "far,", "-e", "x=1"]) == 4
    told = capsys.readouterr().out
    assert f"Revoked: {identifier} ({read(record, gate).identity}, anna.mp4), on list 1 in " in told
    assert "NOT deleted on far: Connection refused" in told
    assert re.search(rf"^  {tmp_path}   of \S+: gone.provenance.json, kept$", told, re.M)
    assert "used in the jobs job-gone, job-kept." in told
    [order] = played
    assert (order.playbook, order.inventory) == ("playbooks/revoke.yml", ["far,"])
    assert order.values == {"x": 1, "faceswap_run_revoke": [identifier]}
    assert cli.main(["consent", "check", str(record)]) == 24
    [*_, first, line] = audit.verify().entries
    assert (first["event"], first["settings"]) == ("revoked", {"serial": 1})
    assert (line["event"], line["consents"]["revoked"]["id"]) == ("purged", identifier)
    assert line["settings"]["not_reached"] == ["far"]
    assert (line["code"], line["message"]) == (4, "far: Connection refused")
    assert "Warning" not in told


def test_the_list_grows_and_the_same_again_only_deletes_again(
    record: Path, gate: ModuleType, played: list[Order], capsys: pytest.CaptureFixture[str]
) -> None:
    for number, identifier in enumerate(["consent-1", "consent-2"], 1):
        assert cli.main(["consent", "revoke", identifier]) == 0
        assert gate.read_revocations().serial == number
    assert cli.main(["consent", "revoke", "consent-1"]) == 0
    assert f"consent-1 was revoked on {TODAY}" in capsys.readouterr().out
    assert gate.read_revocations() == gate.Revocations(2, {"consent-1": TODAY, "consent-2": TODAY})
    assert len(played) == 3


@pytest.mark.parametrize("end", [KeyboardInterrupt(), UsageError("No room."), Outcome("failed", 5, "It broke.")])
def test_a_play_that_did_not_run_does_not_read_as_all_reached(
    record: Path, end: Any, gate: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def play(*_: object) -> Outcome:
        if isinstance(end, BaseException):
            raise end
        assert isinstance(end, Outcome)
        return end

    monkeypatch.setattr(cli, "play", play)
    code = cli.main(["consent", "revoke", str(record)])
    lines = collection_module(ROOT, "audit_log").verify().entries
    assert lines[0]["event"] == "revoked" and lines[0]["settings"] == {"serial": 1}
    assert gate.read_revocations().serial == 1
    if isinstance(end, KeyboardInterrupt):
        assert code == 130 and len(lines) == 1
        return
    message = "No room." if isinstance(end, UsageError) else "It broke."
    assert [(line["event"], line["code"], line["message"]) for line in lines[1:]] == [("purged", code, message)]
    assert code in (2, 5)
    assert "may still be on any of the hosts" in capsys.readouterr().out


def test_an_id_that_nothing_here_knows_is_doubted(
    record: Path, gate: ModuleType, played: list[Order], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["consent", "revoke", "consent-1"]) == 0
    assert "Warning: No record consent-1 is known on this machine" in capsys.readouterr().out
    collection_module(ROOT, "audit_log").append({"event": "done", "consents": {"a": {"id": "consent-2"}}})
    for known in ("consent-1", "consent-2", str(record)):
        assert cli.main(["consent", "revoke", known]) == 0
        assert "Warning" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["Anna Example"], 2, "neither a record nor the id of one"),
        (["consent-1", "-i", "nowhere"], 2, "There is no inventory nowhere"),
        (["consent-1", "--key", "{stranger}"], 26, "is not among the trusted signers"),
    ],
)
def test_what_cannot_be_revoked_changes_nothing(
    record: Path,
    home: Path,
    tmp_path: Path,
    played: list[Order],
    words: list[str],
    code: int,
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stranger = make_key(tmp_path / "stranger")
    assert cli.main(["consent", "revoke", *(word.format(stranger=stranger) for word in words)]) == code
    assert sentence in capsys.readouterr().err
    assert sorted(path.name for path in trusted(home).parent.iterdir()) == ["allowed_signers"]
    assert not played


def test_where_nobody_is_trusted_there_is_no_list(
    home: Path, played: list[Order], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["consent", "revoke", "demo-a"]) == 20
    assert "first `faceswap-oci consent trust KEY.pub`" in capsys.readouterr().err
    assert not played


def test_a_run_killed_between_the_two_files_of_the_list_is_mended_by_the_next(
    record: Path, home: Path, gate: ModuleType, played: list[Order], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["consent", "revoke", "consent-1"]) == 0
    real, done = Path.replace, []

    def replace(self: Path, target: Path) -> Path:
        done.append(target.name)
        if len(done) == 3:  # after the journal and the first of the two
            raise KeyboardInterrupt
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        assert cli.main(["consent", "revoke", "consent-2"]) == 130
    with pytest.raises(gate.ConsentError) as error:
        gate.read_revocations()
    assert error.value.code == gate.NO_TRUST, "until then nothing is made"
    assert cli.main(["consent", "revoke", "consent-3"]) == 0
    assert gate.read_revocations() == gate.Revocations(
        3, dict.fromkeys(["consent-1", "consent-2", "consent-3"], TODAY)
    )


# --- audit -------------------------------------------------------------------------------------------------


def test_audit_says_what_it_found(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["audit", "verify"]) == 3
    assert "no audit log here yet" in capsys.readouterr().out
    audit = collection_module(ROOT, "audit_log")
    made = [audit.append({"event": "released", "outputs": {"/x": digit * 64}}) for digit in "123"]
    sidecar = tmp_path / "x.mp4.provenance.json"
    for digest, line, code, said in (
        ("2" * 64, made[1], 0, "was released on"),
        ("3" * 64, made[1], 1, "it is about another file"),
        ("2" * 64, "0" * 64, 1, "line is not in the log"),
    ):
        sidecar.write_text(json.dumps({"audit": line, "sha256": digest}))
        assert cli.main(["audit", "verify", "--sidecar", str(sidecar)]) == code
        told = capsys.readouterr().out
        assert "The audit log is whole: 3 lines" in told
        assert said in told
    log = home / ".local" / "state" / "faceswap-oci" / "audit" / "log.jsonl"
    whole, aside = log.read_text(), f"({shlex.join(['mv', str(log.parent), f'{log.parent}.altered'])})"
    log.write_text("".join(whole.splitlines(keepends=True)[:2]))
    assert cli.main(["audit", "verify"]) == 1
    told = capsys.readouterr().out
    assert told.startswith("Line 3 was cut off") and told.count(aside) == 1
    log.write_text(whole)
    (log.parent / "key").unlink()
    assert cli.main(["audit", "verify"]) == 1
    told = capsys.readouterr().out
    assert told.startswith("The key that signs the log was removed") and told.count(aside) == 1
    log.unlink()
    assert cli.main(["audit", "verify"]) == 1
    assert aside in capsys.readouterr().err
    for text in ("[]", "[" * 200_000):
        sidecar.write_text(text)
        assert cli.main(["audit", "verify", "--sidecar", str(sidecar)]) == 2
        assert capsys.readouterr().err.startswith(f"{sidecar} is no side-car of a result: give the NAME.mp4")
    sidecar.unlink()
    assert cli.main(["audit", "verify", "--sidecar", str(sidecar)]) == 2
    assert capsys.readouterr().err.startswith(f"There is no {sidecar}: give the NAME.mp4")


def test_a_line_of_something_else_is_no_release(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audit = collection_module(ROOT, "audit_log")
    sidecar = tmp_path / "x.mp4.provenance.json"
    for event in ("quarantined", "refused", ""):
        line = audit.append({"event": event, "outputs": {"/x": "1" * 64}})
        sidecar.write_text(json.dumps({"audit": line, "sha256": "1" * 64}))
        assert cli.main(["audit", "verify", "--sidecar", str(sidecar)]) == 1
        told = capsys.readouterr().out
        assert f"is of {event!r} and no release" in told and "was released" not in told


def test_what_a_log_holds_is_no_order_for_the_terminal(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names in it are others': ESC and U+202E (what follows is shown backwards) are not passed on."""
    audit = collection_module(ROOT, "audit_log")
    name = "\x1b[2J\u202e\n"
    line = audit.append({"event": "released", "consents": {"a": {"id": name}}, "outputs": {"/x": "1" * 64}})
    sidecar = tmp_path / "x.mp4.provenance.json"
    sidecar.write_text(json.dumps({"audit": line, "sha256": "1" * 64}))
    assert cli.main(["audit", "verify", "--sidecar", str(sidecar)]) == 0
    told = capsys.readouterr().out
    assert "with ?[2J?? (line 1)" in told and told.replace("\n", "").isprintable()


def test_the_public_key_is_read_out_of_a_signature(record: Path, home: Path) -> None:
    key = home / ".ssh" / "id_ed25519"
    signature = record.with_name(f"{record.name}.sig").read_bytes()
    assert public_line(signature, key) == key.with_suffix(".pub").read_text().strip()
    assert base64.b64decode(public_line(signature, home / "gone").split()[1])


def test_the_play_deletes_on_each_host_it_reaches_and_names_the_others(
    record: Path, home: Path, tmp_path: Path, gate: ModuleType
) -> None:
    if reason := what_is_missing():
        pytest.skip(reason)
    trust = Trust(tmp_path / "host's")
    job, earlier = (tmp_path / run / "jobs" / "anna" for run in ("a run", "a larger disk"))
    for folder in (job, earlier):
        for name in ("consent", "faces_a", "model"):
            (folder / name).mkdir(parents=True)
        shutil.copy(record, folder / "consent" / "a.yml")
        (folder / "faces_a" / "1.png").touch()
    # As runs have kept it. One folder is gone, one is no folder, and in the earlier one somebody left nonsense.
    gone, no_folder = tmp_path / "gone" / "jobs", tmp_path / "file"
    no_folder.touch()
    known = [str(earlier.parent), str(gone), str(no_folder)]
    (trust.trusted / "jobs.json").write_text(json.dumps(known))
    (earlier.parent / "broken" / "consent" / "z.yml").mkdir(parents=True)
    other = job.with_name("other")
    (other / "faces_a").mkdir(parents=True)
    hosts = {
        "all": {
            "vars": {
                "faceswap_run_dir": str(job.parents[1]),
                "faceswap_run_user": "",
                "faceswap_run_engine_file": str(tmp_path / "engine.json"),
            },
            "children": {
                "faceswap": {
                    "hosts": {
                        "here": {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"},
                        "far": {"ansible_host": "127.0.0.1", "ansible_port": 1},
                    }
                },
                "oci_stopped": {"hosts": {"asleep": {}}},
            },
        }
    }
    (tmp_path / "hosts.json").write_text(json.dumps(hosts))
    (tmp_path / "program.py").write_text(PROGRAM)
    words = ["consent", "revoke", str(record), "-i", str(tmp_path / "hosts.json")]
    program = [sys.executable, str(tmp_path / "program.py"), str(ROOT), str(home), *words]

    def revoke() -> str:
        done = subprocess.run([*trust.prefix, *program], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1, done.stdout + done.stderr
        return done.stdout

    told = revoke()
    assert f"NOT deleted on here: {earlier.parent}: Not all could be purged" in told
    assert " broken: " in told and str(no_folder) in told and "nothing of it" not in told
    for folder in (job, earlier):
        assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["consent"]
    shutil.rmtree(earlier.parent / "broken")
    no_folder.unlink()
    (earlier / "faces_a").mkdir()
    shutil.copy(record, earlier / "consent" / "a.yml")
    told = revoke()
    assert re.search(
        rf"^ *here: deleted of job anna in {earlier.parent}: consent/a\.yml, faces_a\. "
        rf"nothing of it is in {job.parent}\. there is no {no_folder}\. there is no {gone}\.$",
        told,
        re.M,
    ), told
    assert json.loads((trust.trusted / "jobs.json").read_text()) == [*known, str(job.parent)]
    assert "NOT deleted on asleep: asleep does not run: start it, or destroy it." in told
    assert "NOT deleted on far: " in told
    assert (other / "faces_a").exists()


@pytest.mark.parametrize(
    ("typed", "found", "shown"),
    [
        (".venv/bin/faceswap-oci", None, ".venv/bin/faceswap-oci"),
        ("/a b/faceswap-oci", "/c/faceswap-oci", "'/a b/faceswap-oci'"),
        ("/a/faceswap-oci", "/a/faceswap-oci", "faceswap-oci"),
        ("/src/faceswap_oci/__main__.py", None, "faceswap-oci"),
    ],
)
def test_the_next_command_can_be_copied(
    typed: str, found: str | None, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [typed])
    monkeypatch.setattr(shutil, "which", lambda _name: found)
    assert command() == shown
