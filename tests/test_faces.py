"""Sources that cannot be worked on, and what is told of the faces that were found."""

import json
import pickle
import random
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "roles" / "faceswap_run" / "files" / "faces"))

import face_report
import media

SIZE = (96, 64)
Source = Callable[[Path], object]


# -- sources ---------------------------------------------------------------------------------------------------------


def film(
    path: Path,
    pts: Any = range(12),
    codec: str = "libx264",
    size: tuple[int, int] = SIZE,
    rotation: int = 0,
    **options: str,
) -> Path:
    """A video of noise, one frame per time stamp of 1/25 s."""
    noise = np.random.default_rng(1)
    with av.open(str(path), "w", options=options) as out:
        stream: Any = out.add_stream(codec, rate=25)
        (stream.width, stream.height), stream.pix_fmt = size, "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        for p in pts:
            frame = av.VideoFrame.from_ndarray(noise.integers(0, 255, (size[1], size[0], 3), np.uint8), "rgb24")
            frame.pts = p
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def sound(path: Path) -> Path:
    with av.open(str(path), "w", format="mp4") as out:
        stream: Any = out.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.float32), "fltp", "mono")
        frame.sample_rate = 48000
        for piece in av.AudioResampler("fltp", "mono", 48000, frame_size=1024).resample(frame):
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    return path


def changed(path: Path, change: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(change(path.read_bytes()))
    return path


def damaged(path: Path) -> Path:
    """Its index is whole, its frames from the middle on are rubbish."""
    film(path, range(40), movflags="faststart")
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    middle = (start + len(content)) // 2
    content[middle:] = random.Random(1).randbytes(len(content) - middle)
    path.write_bytes(content)
    return path


def folder(path: Path, **files: Any) -> Path:
    path.mkdir()
    for name, picture in files.items():
        picture.save(path / name.replace("_", "."))
    return path


def picture(size: tuple[int, int] = SIZE, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, 100)


def sideways(path: Path) -> Path:
    path.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(path / "photo.jpg", exif=exif)
    return path


BAD: dict[str, tuple[str, Source, str]] = {
    "missing": ("a.mp4", lambda path: None, "is missing"),
    "empty": ("a.mp4", lambda path: path.touch(), "is empty (0 bytes)"),
    "no video at all": ("a.mp4", lambda path: path.write_text("hello " * 999), "is no video that can be opened"),
    "cut off, index at the end": (
        "a.mp4",
        lambda p: changed(film(p), lambda b: b[: len(b) // 2]),
        "it may be cut off",
    ),
    "cut off, index first": (
        "a.mp4",
        lambda path: changed(film(path, movflags="faststart"), lambda b: b[: len(b) * 2 // 3]),
        "is cut off before its last frame",
    ),
    "damaged": ("a.mp4", damaged, "a.mp4 "),
    "only sound": ("a.mp4", sound, "has no video stream"),
    "unknown codec": ("a.mp4", lambda path: changed(film(path), lambda b: b.replace(b"avc1", b"zzzz")), "codec"),
    "unknown ending": ("a.m4v", lambda path: film(path), "does not know .m4v"),
    "no images": ("a", lambda path: folder(path), "holds no images"),
    "a broken image": (
        "a",
        lambda path: (folder(path) / "1.png").write_text("x"),
        "1.png cannot be read as an image",
    ),
    "two of a name": ("a", lambda path: folder(path, x_png=picture(), x_jpg=picture()), "the name of another"),
    "webp": ("a", lambda path: folder(path, x_webp=picture()), "an ending that Faceswap does not know"),
    "alpha": ("a", lambda path: folder(path, x_png=picture(mode="RGBA")), "alpha channel"),
    "on its side": ("a", sideways, "EXIF orientation"),
    "two sizes": ("a", lambda p: folder(p, x_png=picture(), y_png=picture((90, 60))), "are of 2 sizes"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_work_is_said_before_the_work(tmp_path: Path, kind: str) -> None:
    name, make, reason = BAD[kind]
    make(tmp_path / name)
    with pytest.raises(media.MediaError) as refusal:
        media.look(tmp_path / name, faceswap=True, converted=True)
    sentence = str(refusal.value)
    assert reason in sentence and "\n" not in sentence
    assert sentence.endswith((".", "there")) and ":" in sentence  # a cause, and what to do


def test_a_source_that_is_only_learnt_from_may_have_many_sizes(tmp_path: Path) -> None:
    folder(tmp_path / "b", x_png=picture(), y_jpg=picture((90, 60)))
    assert media.look(tmp_path / "b", faceswap=True, converted=False).frames == 2


def test_the_built_in_engine_takes_more_kinds(tmp_path: Path) -> None:
    folder(tmp_path / "a", x_webp=picture())
    assert media.look(tmp_path / "a", faceswap=False, converted=True).frames == 1
    assert media.look(sideways(tmp_path / "b"), faceswap=False, converted=True).frames == 1
    assert media.look(film(tmp_path / "a.m4v"), faceswap=False, converted=True).frames == 12


@pytest.mark.parametrize(("rotation", "turn"), [(0, 0), (90, 1), (180, 2), (-90, 3)])
def test_a_video_is_described(tmp_path: Path, rotation: int, turn: int) -> None:
    seen = media.look(film(tmp_path / "a.mp4", rotation=rotation), faceswap=True, converted=True)
    assert seen == media.Look(frames=12, width=96, height=64, rate=25.0, constant_rate=True, turn=turn)
    assert seen.facts().startswith("12 frames of 96x64 px, 25 frames/s")
    assert media.turn_of(tmp_path / "a.mp4") == turn


def test_an_uneven_rate_is_seen_and_is_no_fault(tmp_path: Path) -> None:
    seen = media.look(film(tmp_path / "a.mkv", [0, 1, 2, 5, 6, 9, 14]), faceswap=True, converted=True)
    assert (seen.frames, seen.constant_rate) == (7, False)
    assert "unevenly" in seen.facts()


def test_frames_that_an_edit_list_hides_are_not_missed(tmp_path: Path) -> None:
    """As a video has whose beginning was cut off without encoding it anew."""
    film(tmp_path / "long.mp4", range(200), g="200", bf="0")
    with av.open(str(tmp_path / "long.mp4")) as long, av.open(str(tmp_path / "cut.mp4"), "w") as out:
        stream = long.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in long.demux(stream):
            if packet.size and packet.pts is not None and packet.dts is not None:
                packet.stream, begin = copy, round(6 / packet.time_base)
                packet.pts, packet.dts = packet.pts - begin, packet.dts - begin
                out.mux(packet)
    with av.open(str(tmp_path / "cut.mp4")) as container:
        assert container.streams.video[0].frames == 200
    assert media.look(tmp_path / "cut.mp4", faceswap=True, converted=True).frames == 50


# -- faces -----------------------------------------------------------------------------------------------------------


def pattern(seed: int) -> Image.Image:
    """A face image with as much detail as a real one."""
    grain = np.random.default_rng(seed).integers(0, 255, (64, 64), np.uint8)
    return Image.fromarray(grain).resize((256, 256), Image.Resampling.BICUBIC).convert("RGB")


def landmarks(size: float) -> list[list[float]]:
    """68 points whose longer side is `size` px."""
    return [[10 + n % 8, 20 + size * n / 67] for n in range(68)]


Face = dict[str, Any]


def side(job: Path, frames: list[list[Face]], blurred: set[int] = frozenset()) -> face_report.Report:  # type: ignore[assignment]
    """Faces and alignments as Faceswap leaves them, and the report about them."""
    (job / "faces_a").mkdir(exist_ok=True)
    data: dict[str, Any] = {}
    for number, faces in enumerate(frames, 1):
        key = f"a_{number:06d}.mp4"
        data[key] = {"faces": faces, "video_meta": {}}
        for n in range(len(faces)):
            image = pattern(number * 10 + n)
            if number in blurred:
                image = image.filter(ImageFilter.GaussianBlur(6))
            image.save(job / "faces_a" / f"a_{number:06d}_{n}.png")
    content = pickle.dumps({"__meta__": {"version": 2.4}, "__data__": data})
    (job / "a.fsa").write_bytes(zlib.compress(content))
    return face_report.look(job / "faces_a", job / "a.fsa", media.Look(len(frames), 96, 64, 25.0))


def face(size: float = 100, person: int | None = None, seed: int = 0) -> Face:
    """A face, with an identity vector near its person's if there is one."""
    identity = {}
    if person is not None:
        middle = np.random.default_rng(person).normal(size=64)
        noise = np.random.default_rng(1000 + seed).normal(size=64)
        identity = {"t-face": (middle + 0.5 * noise).tolist()}
    return {"x": 1, "y": 2, "w": 3, "h": 4, "landmarks_xy": landmarks(size), "mask": {}, "identity": identity}


def test_numbers_of_a_plain_side(tmp_path: Path) -> None:
    report = side(tmp_path, [[face(80 + n)] for n in range(41)])
    assert (report.frames, report.looked_at, report.with_face, report.faces) == (41, 41, 41, 41)
    assert (report.size_least, report.size_median, report.size_most) == (80, 100, 120)
    assert (report.small, report.blurred, report.with_several, report.persons) == (0, 0, 0, None)
    assert report.warnings == ["41 faces are few: from 250 a model learns more of them, so give a longer source."]
    assert "41 faces in 41 of 41 frames" in report.summary and "80 to 120 px, median 100 px" in report.summary


def test_each_flaw_is_warned_of_with_its_number(tmp_path: Path) -> None:
    frames = [[face(40)] for _ in range(3)] + [[face()] for _ in range(30)] + [[]] * 10 + [[face(), face()]] * 2
    report = side(tmp_path, frames, blurred={5, 6, 7, 8})
    assert (report.small, report.blurred, report.with_several, report.with_face) == (3, 4, 2, 35)
    said = " ".join(report.warnings)
    assert "10 of 45 frames have no face" in said
    assert "2 frames show several faces, up to 2" in said
    assert "3 faces are smaller than 64 px" in said
    assert "4 faces are far less sharp than the others" in said


def test_a_side_out_of_focus_is_told(tmp_path: Path) -> None:
    report = side(tmp_path, [[face()] for _ in range(30)], blurred=set(range(1, 31)))
    assert report.blurred == 0  # they are all alike
    assert any("The faces are unsharp" in warning for warning in report.warnings)


@pytest.mark.parametrize("people", [1, 2, 3])
def test_persons_are_counted_by_identity(tmp_path: Path, people: int) -> None:
    frames = [[face(person=n % people, seed=n)] for n in range(60)] + [[face(person=99)]]  # and one who passes by
    report = side(tmp_path, frames)
    assert report.persons == people
    assert sum(report.persons_faces) == 60
    assert any(f"{people} persons seem to be there" in warning for warning in report.warnings) == (people > 1)
    assert f"{people} person" in report.summary


def test_nothing_found_is_a_report_too(tmp_path: Path) -> None:
    report = side(tmp_path, [[] for _ in range(5)])
    assert (report.faces, report.with_face, report.size_most) == (0, 0, 0)
    face_report.write(tmp_path / "report", report)
    assert Image.open(tmp_path / "report" / "sheet.jpg").width > 0


def test_the_sheet_shows_faces_and_marks_flawed_ones(tmp_path: Path) -> None:
    report = side(tmp_path, [[face(40 if n == 150 else 100)] for n in range(200)], blurred={7, 9})
    room = face_report.COLUMNS * face_report.ROWS
    assert len(report.sheet) == room
    numbers = [number for number, _, _ in report.sheet]
    assert numbers == sorted(set(numbers)) and {1, 200} <= set(numbers)
    marked = {(number, face.image.stem if face.image else "", wrong) for number, face, wrong in report.sheet if wrong}
    assert marked == {(7, "a_000007_0", "blurred"), (9, "a_000009_0", "blurred"), (151, "a_000151_0", "small")}
    face_report.write(tmp_path / "report", report)
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    assert content["faces"] == 200 and content["video"]["width"] == 96 and content["summary"] == report.summary
    with Image.open(tmp_path / "report" / "sheet.jpg") as jpeg:
        sheet = np.asarray(jpeg.convert("RGB")).astype(int)
    thumb, line = face_report.THUMB, face_report.THUMB + face_report.CAPTION
    head = sheet.shape[0] - face_report.ROWS * line
    red = (sheet[..., 0] > 180) & (sheet[..., 1] < 90)

    def framed(place: int) -> bool:
        y, x = head + place // face_report.COLUMNS * line, place % face_report.COLUMNS * thumb
        return bool(red[y + 1 : y + 4, x + 10 : x + thumb - 10].mean() > 0.5)

    assert [framed(place) for place in range(room)] == [bool(wrong) for _, _, wrong in report.sheet]


Vectors = NDArray[np.float64]


def test_first_faces_that_are_not_typical_do_not_make_a_person() -> None:
    """The order in which faces come must not matter."""
    rng = np.random.default_rng(3)
    one, other = rng.normal(size=(2, 128))
    alike = [person + 0.75 * rng.normal(size=(count, 128)) for person, count in ((one, 40), (other, 30))]
    vectors: Vectors = np.concatenate(alike)
    for _ in range(5):
        assert face_report.persons(rng.permutation(vectors)) == [40, 30]
