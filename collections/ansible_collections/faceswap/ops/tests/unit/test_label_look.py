"""The look at a film before it is signed believes nothing that the film says of itself."""

from collections.abc import Callable, Container, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from ansible_collections.faceswap.ops.plugins.module_utils import label_look
from av.stream import Disposition
from av.video.frame import PictureType
from signed_video import LABEL, label_module, labelled

FRAMES = 30
SIZE = 320, 240  # px


def picture(number: int, has_label: bool, size: tuple[int, int] = SIZE) -> av.VideoFrame:
    """One that moves, with the label or without."""
    bare = np.full((size[1], size[0], 3), (40, 90, 160), np.uint8)
    bare[:, number * 9 % size[0] :][:, :20] = 200
    if has_label:
        label = label_module()
        drawn = label.draw(label.from_record(LABEL), *size).astype(float)
        share = drawn[..., 3:] / 255
        bare = np.round(bare * (1 - share) + drawn[..., :3] * share).astype(np.uint8)
    return av.VideoFrame.from_ndarray(bare, "rgb24")


def film(
    path: Path,
    where: Container[int] = range(FRAMES),
    *,
    muxer: dict[str, str] | None = None,
    keys: Container[int] = (),
    aspect: int | Fraction = 1,
    size: tuple[int, int] = SIZE,
    tracks: int = 1,
    timecode: str = "",
    **coding: str,
) -> Path:
    """A film whose first track has the label `where` it is said, and others nowhere; `keys` begin anew."""
    with av.open(str(path), "w", options=muxer or {}) as out:
        streams: list[Any] = []
        for _ in range(tracks):
            stream = out.add_stream("libx264", rate=25, options={"crf": "18", "bf": "0", **coding})
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            stream.codec_context.sample_aspect_ratio = Fraction(aspect)
            stream.metadata.update({"timecode": timecode} if timecode else {})
            streams.append(stream)
        for number in range(FRAMES):
            for track, stream in enumerate(streams):
                frame = picture(number, not track and number in where, size)
                frame.pict_type = PictureType.I if number in keys else PictureType.NONE
                out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode(None))
    return path


def boxes(content: bytes, begin: int, end: int) -> Iterator[tuple[str, int]]:
    """The boxes of an mp4, those within others too, and where each one's content is."""
    while begin < end:
        size, kind = (
            int.from_bytes(content[begin : begin + 4], "big"),
            content[begin + 4 : begin + 8].decode("latin-1"),
        )
        yield kind, begin + 8
        if kind in ("moov", "trak", "mdia", "minf", "stbl", "edts"):
            yield from boxes(content, begin + 8, begin + size)
        begin += size


def patch(path: Path, box: str, at: int, value: bytes) -> Path:
    """Write something into the last box of a kind, so far from where its content begins."""
    content = bytearray(path.read_bytes())
    place = [where for kind, where in boxes(content, 0, len(content)) if kind == box][-1] + at
    content[place : place + len(value)] = value
    path.write_bytes(content)
    return path


def number(value: int) -> bytes:
    return value.to_bytes(4, "big")


def paired(folder: Path) -> Path:
    """A film that shows two pictures at each time, of which the second has no label."""
    with av.open(str(film(folder / "x.mp4", range(0, FRAMES, 2)))) as old, av.open(str(folder / "x.mkv"), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for n, packet in enumerate(old.demux(video=0)):
            if packet.size:
                packet.pts = packet.dts = n // 2 * 1024
                packet.stream = stream
                new.mux(packet)
    return folder / "x.mkv"


def squeezed_midway(folder: Path) -> Path:
    """A film whose pixels are narrow from its second half on."""
    halves = b"".join(film(folder / f"{n}.h264", aspect=Fraction(1, n)).read_bytes() for n in (1, 12))
    (folder / "both.h264").write_bytes(halves)
    with av.open(str(folder / "both.h264")) as old, av.open(str(folder / "x.mp4"), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for n, packet in enumerate(one for one in old.demux(video=0) if one.size):
            packet.pts = packet.dts = n * 48000
            packet.stream = stream
            new.mux(packet)
    return folder / "x.mp4"


TRICKS: dict[str, tuple[Callable[[Path], Path], str]] = {
    # The head counts one frame.
    "stts": (lambda d: patch(film(d / "x.mp4", (0, 29)), "stts", 8, number(1)), "on 28 of the 30"),
    # The head counts those of the first fragment.
    "fragments": (
        lambda d: film(
            d / "x.mp4", (*range(5), 29), muxer={"movflags": "frag_keyframe", "min_frag_duration": "0"}, g="5"
        ),
        "on 24 of the 30",
    ),
    # The head says that the film lasts for a moment.
    "mdhd": (lambda d: patch(film(d / "x.mp4", (0, 1)), "mdhd", 16, number(1)), "on 28 of the 30"),
    # The edit list leaves out the second half, and not every player minds it.
    "elst": (lambda d: patch(film(d / "x.mp4", range(15)), "elst", 8, number(600)), "on 15 of the 30"),
    # Without a list of those, each picture is one that decoding may begin with; a decoder goes on to one that is.
    "stss": (
        lambda d: patch(
            film(d / "x.mp4", (0, 29), keys=(0, 29), g="99", **{"x264-params": "scenecut=0"}), "stss", -4, b"free"
        ),
        "on 28 of the",
    ),
    "two at a time": (paired, "on 15 of the 30"),
    "narrow pixels": (lambda d: film(d / "x.mp4", aspect=Fraction(1, 12), size=(1920, 240)), "on 30 of the 30"),
    "flat pixels": (lambda d: film(d / "x.mp4", aspect=3), "on 30 of the 30"),
    "narrow pixels midway": (squeezed_midway, "on 30 of the 60"),
    "a second track": (lambda d: film(d / "x.mp4", tracks=2), "has a stream (video) beside"),
    "subtitles": (
        lambda d: patch(patch(film(d / "x.mp4", tracks=2), "hdlr", 8, b"sbtl"), "stsd", 12, b"tx3g"),
        "has a stream (subtitle) beside",
    ),
    "a time code": (lambda d: film(d / "x.mp4", timecode="01:00:00:00"), "has a stream (data) beside"),
    "an unknown codec": (lambda d: patch(film(d / "x.mp4"), "stsd", 12, b"zzzz"), "has a stream (video) beside"),
}


@pytest.mark.parametrize("until", [10, 1000])
@pytest.mark.parametrize("trick", TRICKS)
def test_a_film_that_is_another_than_it_says_is_objected_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trick: str, until: int
) -> None:
    monkeypatch.setattr(label_look, "ALL_UNTIL", until)  # frames are looked up
    make, said = TRICKS[trick]
    found = str(label_look.objection(make(tmp_path), label_module(), LABEL))
    assert said in found


def test_a_cover_is_objected_to(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    with av.open(str(film(tmp_path / "bare.mp4"))) as old, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(old.streams.video[0])
        cover: Any = out.add_stream("mjpeg")
        cover.width, cover.height, cover.pix_fmt = *SIZE, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
        out.mux(cover.encode(picture(0, False)))
        out.mux(cover.encode(None))
    assert "has a stream (video) beside" in str(label_look.objection(path, label_module(), LABEL))


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.ts", "x.mov"])
@pytest.mark.parametrize(
    "coding", [{"g": "7", "bf": "3"}, {"g": "99"}, {"g": "7", "bf": "3", "x264-params": "open-gop=1"}]
)
def test_every_picture_of_an_honest_one_is_found_by_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, coding: dict[str, str]
) -> None:
    monkeypatch.setattr(label_look, "ALL_UNTIL", 10)
    path, label = film(tmp_path / name, **coding), label_module()
    assert label_look.objection(path, label, LABEL) is None
    style = label.from_record(LABEL)
    looked, seen = label_look.count(path, label, [style], as_drawn=True, whole=True)
    assert seen == [looked]
    # Elsewhere than in what is released, where a time leads is less exact, and the rest is found by counting.
    assert looked == FRAMES or (looked > FRAMES and (name == "x.ts" or "x264-params" in coding))
    assert label_look.seconds(path) == pytest.approx(FRAMES / 25, abs=0.001)


@pytest.mark.parametrize(("box", "at"), [("mdhd", 16), ("mvhd", 16), ("elst", 8)])
def test_how_long_it_lasts_is_not_what_it_says(tmp_path: Path, box: str, at: int) -> None:
    assert label_look.seconds(patch(film(tmp_path / "x.mp4"), box, at, number(1))) == FRAMES / 25


def test_pixels_that_are_not_quite_square_are_as_released(tmp_path: Path) -> None:
    for aspect in (Fraction(1, 2), Fraction(16, 11), 2):
        assert label_look.objection(film(tmp_path / "x.mp4", aspect=aspect), label_module(), LABEL) is None


@pytest.mark.parametrize("count", [0, 1, 2, 3, 26, 27, 28, 1000])
def test_chance_says_which_of_the_parts_is_looked_at(count: int) -> None:
    samples = [label_look.spread(count) for _ in range(5)]
    for one in samples:
        assert one <= set(range(count)) and len(one) == min(count, label_look.SAMPLE + 2)
        assert {0, count - 1} <= one or not count
        gaps: Sequence[int] = np.diff(sorted(one)).tolist()
        assert max(gaps, default=0) <= 2 * (count / label_look.SAMPLE + 1)
    assert count < 100 or len(set(map(frozenset, samples))) > 1


def test_a_long_one_with_a_bare_part_is_objected_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_look, "ALL_UNTIL", 10)
    monkeypatch.setattr(label_look, "SIGNED", 6)
    bare = labelled(tmp_path / "x.mp4", without=range(12, 22))
    assert "does not carry" in str(label_look.objection(bare, label_module(), LABEL))
