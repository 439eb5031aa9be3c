"""`faceswap-oci verify`: what becomes of a released video in the world is told in sentences."""

import argparse
import errno
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest
from ansible_collections.faceswap.ops.plugins.module_utils import label_look, provenance
from ansible_collections.faceswap.ops.plugins.module_utils.signing_certificate import (
    TEST_NAME,
    Credentials,
    read_credentials,
    throwaway_credentials,
)
from signed_video import CLIP, LABEL, asked, boxes, flipped, make_signer, released, sha256, sign, to_stored

from faceswap_oci import shared, verify

ROOT = Path(__file__).parent.parent
FRAMES = 40


def label_module() -> ModuleType:
    return shared.role_module(ROOT, "release/label.py")


def encode(
    path: Path,
    labelled: Collection[int] | None = None,
    size: tuple[int, int] = (320, 240),
    matrix: tuple[int, ...] | None = None,
    **options: str,
) -> Path:
    """A video of which those frames carry the label; all if nothing is said. `size` is px as displayed."""
    label = label_module()
    drawn = label.draw(label.Style(LABEL["text"]), *size).astype(np.float32)
    opacity = drawn[..., 3:] / 255
    with av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "18", **options})
        stream.width, stream.height = size[::-1] if matrix else size
        stream.pix_fmt = "yuv420p"
        stream.set_display_matrix(matrix)
        across, down = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
        for n in range(FRAMES):
            picture = np.stack([(across + 3 * n) % 256, down % 256, (across + down) % 256], axis=-1).astype(
                np.float32
            )
            if labelled is None or n in labelled:
                picture = picture * (1 - opacity) + drawn[..., :3] * opacity
            stored = np.ascontiguousarray(to_stored(picture.astype(np.uint8), matrix))
            out.mux(stream.encode(av.VideoFrame.from_ndarray(stored, "rgb24")))
        out.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def test_signer(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    return throwaway_credentials(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, test_signer: Credentials) -> Path:
    folder = tmp_path_factory.mktemp("original")
    sign(encode(folder / "unsigned.mp4"), folder / "job.mp4", test_signer)
    return folder / "job.mp4"


@pytest.fixture
def video(original: Path, tmp_path: Path) -> Path:
    for path in (original, provenance.sidecar_path(original)):
        shutil.copy(path, tmp_path)
    return tmp_path / "job.mp4"


def look(path: Path, trust: Path | None = None) -> verify.Findings:
    roots = trust.read_text() if trust else ""
    return verify.examine(path, roots, provenance, label_look, label_module())


def test_a_released_video_is_told_to_be_sound_and_its_certificate_to_prove_nothing(
    video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = argparse.Namespace(file=video, trust=None, json=False)
    assert verify.run(options, ROOT) == 0
    said = capsys.readouterr().out
    assert TEST_NAME in said and "NONE: a TEST certificate proves nothing" in said
    assert "consent-a of the person whose head stays" in said
    assert "engine minifaceswap 0.1.0, 400 training iterations" in said
    assert "“AI-manipulated” on 27 of 27 frames" in said
    assert "every byte is as it was signed" in said
    assert said.endswith(
        "Signed, unaltered and labelled; by a TEST certificate, which proves nothing about who made it.\n"
    )
    assert len(said.splitlines()) <= 24 and max(map(len, said.splitlines())) < 120


def test_the_findings_as_json(video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.run(argparse.Namespace(file=video, trust=None, json=True), ROOT) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["signed"], found["altered"], found["certificate"]) == (True, False, "test")
    assert found["label"] == {"text": "AI-manipulated", "frames": 27, "seen": 27, "present": True}
    assert found["says"]["consents"][1]["id"] == "consent-b" and found["wrong"] == []


def test_a_root_of_trust_decides(original: Path, tmp_path: Path) -> None:
    signer = make_signer(tmp_path / "own")
    sign(original.with_name("unsigned.mp4"), tmp_path / "own.mp4", read_credentials(signer.key, signer.chain))
    assert look(tmp_path / "own.mp4").certificate == "unknown"
    assert look(tmp_path / "own.mp4").wrong == []
    found = look(tmp_path / "own.mp4", signer.root)
    assert (found.certificate, found.signed_by, found.wrong) == ("trusted", "Jo Signer", [])
    stranger = look(tmp_path / "own.mp4", make_signer(tmp_path / "other").root)
    assert stranger.certificate == "unknown" and "stands behind" in stranger.wrong[0]


def test_a_test_certificate_stays_one_even_with_its_root(video: Path, tmp_path: Path) -> None:
    root = tmp_path / "root.pem"
    own = throwaway_credentials(tmp_path / "state")
    sign(video, tmp_path / "again.mp4", own)
    root.write_text((tmp_path / "state" / "root.pem").read_text())
    assert look(tmp_path / "again.mp4", root).certificate == "test"


@pytest.mark.parametrize("content", ["", "nonsense"])
def test_trust_that_is_no_certificate_is_told(
    video: Path, tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    roots = tmp_path / "roots.pem"
    for _ in range(2):
        assert verify.run(argparse.Namespace(file=video, trust=roots, json=False), ROOT) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1 and (": give the root" if roots.exists() else ": name a file") in told
        roots.write_text(content)


def test_a_flipped_byte_anywhere_is_found(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "_label", lambda *_: None)  # another test's matter, and the slow one
    places = random.Random(3).sample(range(video.stat().st_size), 100)
    places += [span[at] for span in boxes(video.read_bytes()).values() for at in (0, 4, -1)]
    for at in places:
        with flipped(video, at, at % 8):
            found = look(video)
            assert found.wrong, at
            assert found.sidecar == "differs"
    assert look(video).wrong == []


def test_without_its_side_car_what_is_played_is_still_covered(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "_label", lambda *_: None)
    provenance.sidecar_path(video).unlink()
    assert look(video).wrong == [] and look(video).sidecar == "missing"
    span = boxes(video.read_bytes())
    for at in random.Random(4).sample([*span["mdat"], *span["moov"]], 60):
        with flipped(video, at):
            assert look(video).wrong, at


def test_a_side_car_of_another_file_does_not_make_a_good_signature_bad(
    video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sidecar = provenance.sidecar_path(video)
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "sha256": "0" * 64}))
    assert verify.run(argparse.Namespace(file=video, trust=None, json=False), ROOT) == 1
    said = capsys.readouterr().out
    assert "holds: nothing that it covers was altered" in said and "BROKEN" not in said
    assert "beside it, and about ANOTHER file" in said and "do not rely on it" not in said


def test_what_is_hung_on_behind_is_found(video: Path) -> None:
    with video.open("ab") as file:
        file.write(b"\0\0\0\x10free12345678")  # C2PA's hash leaves such a box out
    assert "side-car" in look(video).wrong[0]


def remux(source: Path, target: Path) -> None:
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)


def test_packed_anew_it_has_lost_its_signature_and_kept_its_label(video: Path, tmp_path: Path) -> None:
    remux(video, tmp_path / "remuxed.mp4")
    found = look(tmp_path / "remuxed.mp4")
    assert not found.signed and "Encoding or packing anew" in found.wrong[0] and len(found.wrong) == 1
    assert found.label["present"] and found.label["text"] == "AI-manipulated"
    remux(video, tmp_path / "remuxed.mkv")
    assert "no signature" in look(tmp_path / "remuxed.mkv").wrong[0]


def test_in_the_place_of_the_released_video_another_is_told_by_the_side_car(video: Path, tmp_path: Path) -> None:
    remux(video, tmp_path / "remuxed.mp4")
    (tmp_path / "remuxed.mp4").replace(video)
    found = look(video)
    assert not found.signed and found.sidecar == "differs" and found.label["present"]


def test_encoded_anew_and_smaller_the_label_is_still_seen(tmp_path: Path) -> None:
    assert look(encode(tmp_path / "poor.mp4", crf="32")).label["present"]


def test_frames_without_the_label_are_counted(original: Path, tmp_path: Path, test_signer: Credentials) -> None:
    sign(encode(tmp_path / "u.mp4", range(1, FRAMES)), tmp_path / "job.mp4", test_signer)
    assert look(tmp_path / "job.mp4").wrong == ["The label is missing on 1 of the 27 frames looked at."]
    sign(encode(tmp_path / "u.mp4", range(FRAMES - 1)), tmp_path / "job.mp4", test_signer)
    assert look(tmp_path / "job.mp4").wrong == ["The label is missing on 1 of the 27 frames looked at."]
    sign(encode(tmp_path / "u.mp4", range(0)), tmp_path / "job.mp4", test_signer)
    assert "on none of the 27" in look(tmp_path / "job.mp4").wrong[0]


def test_an_ordinary_video_has_neither(tmp_path: Path) -> None:
    found = look(CLIP)
    assert not found.signed and len(found.wrong) == 2 and "is on none of the 3 frames" in found.wrong[1]


def test_a_file_cut_off_is_told(video: Path) -> None:
    content = video.read_bytes()
    for share in (0.999, 0.9, 0.5, 0.05, 0.001):
        video.write_bytes(content[: int(len(content) * share)])
        assert look(video).wrong
        provenance.sidecar_path(video).unlink(missing_ok=True)
        assert look(video).wrong


@pytest.mark.parametrize("content", [b"", b"plain text\n", b"\0" * 5000, b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
@pytest.mark.parametrize("name", ["x.mp4", "x.txt", "x", "x.png", "x.pdf"])
def test_what_is_no_video_is_told(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    found = look(tmp_path / name)
    assert found.wrong and all(one.endswith(".") for one in found.wrong)
    assert verify.screen(found)


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    assert "There is no file" in look(tmp_path / "none.mp4").wrong[0]
    assert "folder" in look(tmp_path).wrong[0]
    os.mkfifo(tmp_path / "pipe")
    assert "cannot be read" in look(tmp_path / "pipe").wrong[0]
    (tmp_path / "round").symlink_to("round")
    assert "cannot be read" in look(tmp_path / "round").wrong[0]


def test_where_there_is_nothing_to_look_at_one_sentence_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "none.mp4"
    assert verify.run(argparse.Namespace(file=path, trust=None, json=False), ROOT) == 2
    assert capsys.readouterr() == ("", f"There is no file {path}: check its name.\n")
    assert verify.run(argparse.Namespace(file=path, trust=None, json=True), ROOT) == 2
    assert json.loads(capsys.readouterr().out)["wrong"] == [f"There is no file {path}: check its name."]


def test_no_permission_is_told(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))  # root, too, is to see it

    monkeypatch.setattr(provenance, "open_file", refuse)
    assert look(video).wrong == [f"{video} cannot be read: Permission denied."]


def test_a_link_to_a_video_is_followed(video: Path, tmp_path: Path) -> None:
    (tmp_path / "link.mp4").symlink_to(video)
    assert look(tmp_path / "link.mp4").wrong == []


def test_a_damaged_side_car_is_told(video: Path) -> None:
    for text in ("", "[]", "{}", "[" * 200_000, '{"format": "faceswap-oci provenance 1", "sha256": 3}'):
        provenance.sidecar_path(video).write_text(text)
        assert "damaged" in look(video).wrong[0]
    digest = sha256(video)
    manifest: Any
    for manifest in (None, {"assertions": [3]}, {"assertions": [{"label": provenance.SWAP, "data": 3}]}):
        content = {"format": provenance.SIDECAR, "sha256": digest, "manifest": manifest}
        provenance.sidecar_path(video).write_text(json.dumps(content))
        assert look(video).wrong == []


@pytest.mark.parametrize(
    "swap",
    [
        {"engine": 3, "consents": "none", "label": "x"},
        {"consents": [3, {"side": []}], "label": {"text": 3}, "iterations": {}},
        {"engine": "\x1b[31mred\n", "consents": [{"side": "a", "id": "\x1b]0;title\x07"}]},
    ],
)
def test_another_tools_words_are_borne_and_cannot_steer_the_terminal(
    original: Path, tmp_path: Path, test_signer: Credentials, swap: dict[str, Any]
) -> None:
    manifest = asked()
    manifest["assertions"][1]["data"] = swap
    sign(original.with_name("unsigned.mp4"), tmp_path / "job.mp4", test_signer, manifest)
    found = look(tmp_path / "job.mp4")
    assert found.signed and "\x1b" not in "\n".join(verify.screen(found))


def test_signed_by_another_tool_says_nothing_of_a_swap(
    original: Path, tmp_path: Path, test_signer: Credentials
) -> None:
    manifest = asked()
    manifest["assertions"].pop()
    sign(original.with_name("unsigned.mp4"), tmp_path / "job.mp4", test_signer, manifest)
    assert look(tmp_path / "job.mp4").wrong == [
        "Its signature says nothing of a face swap: it was signed by another tool, or over again."
    ]


def test_a_turned_video(tmp_path: Path) -> None:
    matrix = (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)  # a quarter, as a phone held upright says
    assert look(encode(tmp_path / "turned.mp4", size=(240, 320), matrix=matrix)).label["present"]


def test_a_long_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_look, "ALL_UNTIL", 10)  # frames are looked up
    found = look(encode(tmp_path / "long.mp4", g="12"))
    assert found.label["present"] and 25 <= found.label["frames"] <= 27
    assert not look(encode(tmp_path / "last.mp4", range(FRAMES - 1), g="12")).label["present"]


def test_nobody_foresees_which_frames_are_looked_at(tmp_path: Path) -> None:
    even = {round((FRAMES - 1) * n / 26) for n in range(27)}
    found = look(encode(tmp_path / "even.mp4", even)).label
    assert found["frames"] == 27 and found["seen"] < 27


def test_what_is_shown_beside_the_labelled_pictures_is_told(video: Path, tmp_path: Path) -> None:
    with av.open(str(video)) as old, av.open(str(tmp_path / "two.mp4"), "w") as new:
        streams = [new.add_stream_from_template(old.streams.video[0]) for _ in range(2)]
        for packet in old.demux(video=0):
            for stream in streams if packet.size else ():
                packet.stream = stream
                new.mux(packet)
    assert "It has a stream (video) beside one of pictures" in look(tmp_path / "two.mp4").wrong[1]


@pytest.mark.parametrize("until", [10, 1000])
def test_a_gap_in_a_container_that_does_not_count_its_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: int
) -> None:
    monkeypatch.setattr(label_look, "ALL_UNTIL", until)
    labelled = [n for n in range(FRAMES) if n not in range(24, 30)]
    remux(encode(tmp_path / "gap.mp4", labelled, g="12"), tmp_path / "gap.mkv")
    with av.open(str(tmp_path / "gap.mkv")) as container:
        assert container.streams.video[0].frames == 0
    found = look(tmp_path / "gap.mkv").label
    assert 25 <= found["frames"] <= 27 and found["frames"] - 5 <= found["seen"] <= found["frames"] - 3


@pytest.mark.once
def test_the_command(video: Path) -> None:
    command = [sys.executable, "-m", "faceswap_oci", "verify", str(video)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "Signed, unaltered and labelled" in done.stdout
    assert released()["video"] == "job.mp4"
