"""The release step, on real videos that PyAV makes here: what it keeps, what it burns in, what it refuses."""

import base64
import dataclasses
import io
import json
import logging
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from ansible_collections.faceswap.ops.plugins.module_utils import label_look
from av.video.reformatter import Interpolation
from numpy.typing import NDArray
from PIL import Image
from signed_video import to_stored
from supervised_job import PROGRAMS

FILES = Path(__file__).resolve().parents[1] / "roles" / "faceswap_run" / "files" / "release"
sys.path.insert(0, str(FILES))

import label as labels  # noqa: E402
import release  # noqa: E402
import sources  # noqa: E402

LABEL = "AI-manipulated"
# swscale's default path darkens 4:2:0 by about one level of 255, which would hide an error of that size here.
ROUNDING = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
Array = NDArray[Any]


def scene(number: int, width: int, height: int) -> Array:
    """A picture (height, width, 3) with a gradient and a bar that moves with the frame number."""
    y, x = np.mgrid[0:height, 0:width]
    picture = np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 128)], axis=-1).astype(np.uint8)
    left = number * 5 % width
    picture[:, left : left + max(2, width // 16)] = 230
    return picture


def tone(seconds: float, rate: int = 48000, channels: int = 2) -> Array:
    """Interleaved 16-bit samples (1, n * channels): a click every half second over a soft tone."""
    t = np.arange(round(seconds * rate)) / rate
    wave = 0.1 * np.sin(2 * np.pi * 440 * t)
    wave[(t % 0.5) < 0.004] = 0.9
    return np.repeat((wave * 32767).astype(np.int16), channels)[None, :]


def write_video(
    path: Path,
    pts: Sequence[int] = range(30),
    time_base: Fraction = Fraction(1, 25),
    size: tuple[int, int] = (160, 120),
    codec: str = "libx264",
    sound: Sequence[str] = (),
    sound_start: float = 0.0,
    hole: tuple[float, float] = (0, 0),
    pixel_format: str = "yuv420p",
    colour: tuple[int, int, int, int] | None = None,
    rotation: int | None = None,
    rate: Fraction | None = None,
    pixel_aspect: Fraction = Fraction(1),
    timecode: str = "",
) -> Path:
    """A source: one frame per entry of `pts`, and one sound track per codec in `sound`."""
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(codec, rate=rate or 1 / time_base, time_base=time_base)
        stream.width, stream.height, stream.pix_fmt = (*size, pixel_format)
        context = stream.codec_context
        context.time_base = time_base
        context.sample_aspect_ratio = pixel_aspect
        stream.metadata.update({"timecode": timecode} if timecode else {})
        if colour:
            context.color_range, context.color_primaries, context.color_trc, context.colorspace = colour
        if rotation is not None:
            stream.set_display_rotation(rotation)
        tracks: list[Any] = [out.add_stream(name, rate=48000, layout="stereo") for name in sound]
        for track, language in zip(tracks, ("ger", "fre", "eng"), strict=False):
            track.metadata.update({"language": language, "title": "Anna sings", "handler_name": "Anna"})
        for number, p in enumerate(pts):
            frame = av.VideoFrame.from_ndarray(scene(number, *size), "rgb24")
            if colour:
                frame = frame.reformat(format=pixel_format, dst_colorspace=colour[3], dst_color_range=colour[0])
            frame.pts, frame.time_base = p, time_base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        for track in tracks:
            samples = av.AudioFrame.from_ndarray(tone(len(pts) / 25), "s16", "stereo")
            samples.sample_rate, samples.time_base = 48000, Fraction(1, 48000)
            samples.pts = round(sound_start * 48000)
            resampler = av.AudioResampler(track.format, "stereo", 48000, frame_size=track.frame_size or 1024)
            for piece in [*resampler.resample(samples), *resampler.resample(None)]:
                if not hole[0] < float(piece.time or 0) < hole[1]:
                    out.mux(track.encode(piece))
            out.mux(track.encode(None))
    return path


def convert(job: Path, source: Path) -> None:
    """Stand in for the engine: every frame of the source as it does it, in quarantine."""
    (job / "quarantine").mkdir()
    with av.open(str(source)) as container:
        for number, frame in enumerate(container.decode(video=0), 1):
            picture = Image.fromarray(frame.to_ndarray(format="rgb24", interpolation=ROUNDING))
            picture.save(job / "quarantine" / f"{source.stem}_{number:06d}.png", compress_level=1)


Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a job whose frames are converted; returns its folder."""

    def job(name: str = "a.mp4", **options: Any) -> Path:
        (tmp_path / "input").mkdir()
        convert(tmp_path, write_video(tmp_path / "input" / name, **options))
        return tmp_path

    return job


def run(
    job: Path,
    source: str = "input/a.mp4",
    style: labels.Style | None = None,
    name: str = "swap",
    rate: Fraction | None = None,
    part: str = "",
    percent: int = 100,
    language: str = "en",
) -> Path:
    """Release within this process; returns the result."""
    paths = Path(source), Path("quarantine"), Path("result")
    release.release(job, name, *paths, style or labels.Style(LABEL), rate, part, percent, language)
    return job / "result" / f"{name}.mp4"


def command(job: Path, *more: str, source: str = "input/a.mp4", label: str = LABEL) -> list[str]:
    paths = ["--source", source, "--frames", "quarantine", "--output", "result"]
    program = str(PROGRAMS / "release" / "release.py")  # the same without consents, of which tests/test_gate.py asks
    return [sys.executable, program, str(job), "--job", "swap", *paths, "--label", label, *more]


@dataclass
class Seen:
    times: list[Fraction]
    pictures: list[Array]
    durations: list[Fraction]
    packets: list[list[tuple[Fraction, bytes]]]
    rate: Fraction
    size: tuple[int, int]
    rotation: int
    colour: tuple[int, int, int, int]
    pixel_format: str
    metadata: dict[str, str]
    sound: list[str]
    languages: list[str | None]


def look(path: Path) -> Seen:
    """All that a player would find in a video."""
    with av.open(str(path)) as container:
        stream: Any = container.streams.video[0]
        frames: list[Any] = list(container.decode(stream))
        first = frames[0]
        packets = []
        track: Any
        for track in container.streams.audio:
            container.seek(0)
            packets.append([(p.pts * p.time_base, bytes(p)) for p in container.demux(track) if p.size])
        return Seen(
            times=[f.pts * f.time_base for f in frames],
            pictures=[f.to_ndarray(format="rgb24", interpolation=ROUNDING) for f in frames],
            durations=[f.duration * f.time_base for f in frames],
            packets=packets,
            rate=stream.average_rate,
            size=(first.width, first.height),
            rotation=first.rotation,
            colour=(first.color_range, first.color_primaries, first.color_trc, first.colorspace),
            pixel_format=stream.pix_fmt,
            metadata=dict(container.metadata),
            sound=[t.codec_context.codec.canonical_name for t in container.streams.audio],
            languages=[t.language for t in container.streams.audio],
        )


def decoded_sound(path: Path, track: int = 0) -> tuple[float, Array]:
    """Start (s) and mono samples at 48 kHz of a sound track as a player plays it."""
    resampler = av.AudioResampler("flt", "mono", 48000)
    with av.open(str(path)) as container:
        frames: list[Any] = list(container.decode(container.streams.audio[track]))
    pieces = [r for f in [*frames, None] for r in resampler.resample(f)]
    return float(frames[0].pts * frames[0].time_base), np.concatenate([p.to_ndarray()[0] for p in pieces])


def clicks(start: float, samples: Array) -> Array:
    """The times (s) at which the clicks of `tone` begin."""
    loud = np.flatnonzero(np.abs(samples) > 0.5)
    return start + loud[np.insert(np.diff(loud) > 4800, 0, True)] / 48000


def test_a_cinema_rate_is_kept_to_the_frame(make: Make) -> None:
    job = make(time_base=Fraction(1001, 30000), pts=range(45))
    seen, source = look(run(job)), look(job / "input" / "a.mp4")
    assert len(seen.times) == 45
    assert seen.rate == source.rate == Fraction(30000, 1001)
    assert seen.times == source.times
    assert seen.durations == source.durations


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_variable_rate_is_kept(make: Make, name: str) -> None:
    pts = np.cumsum([0, 40, 33, 17, 120, 40, 500, 41, 7, 40, 40, 33]).tolist()
    job = make(name, pts=pts, time_base=Fraction(1, 1000), rate=Fraction(25))
    result = run(job, f"input/{name}")
    seen = look(result)
    assert seen.times == look(job / "input" / name).times == [Fraction(p, 1000) for p in pts]
    assert seen.durations[:-1] == [b - a for a, b in pairwise(seen.times)]
    assert "variable" in (job / "result" / "report.html").read_text()


def test_rounded_time_stamps_are_no_variable_rate(make: Make) -> None:
    job = make("a.mkv", time_base=Fraction(1001, 30000), pts=range(45))  # Matroska rounds to milliseconds
    result = run(job, "input/a.mkv")
    assert look(result).times == look(job / "input" / "a.mkv").times
    assert look(result).rate == pytest.approx(30000 / 1001, abs=0.01)
    assert "variable" not in (job / "result" / "report.html").read_text()


def test_a_late_first_frame_stays_late(make: Make) -> None:
    job = make(pts=range(10, 30), sound=["aac"])
    assert look(run(job)).times == [Fraction(p, 25) for p in range(10, 30)]


def test_a_distance_between_sound_and_picture_of_no_whole_milliseconds_is_kept(make: Make) -> None:
    job = make("a.ts", sound=["aac"])  # the encoder's lead-in comes 21.3 ms before the picture
    source, seen = look(job / "input" / "a.ts"), look(run(job, "input/a.ts"))
    lead = [video.times[0] - video.packets[0][0][0] for video in (source, seen)]
    assert lead[0] == lead[1] == Fraction(1920, 90000)
    assert [t - seen.times[0] for t in seen.times] == [t - source.times[0] for t in source.times]


@pytest.mark.parametrize("codec", ["aac", "mp3", "ac3"])
def test_sound_that_an_mp4_takes_is_copied_bit_for_bit(make: Make, codec: str) -> None:
    job = make(sound=[codec])
    source, seen = look(job / "input" / "a.mp4"), look(run(job))
    assert seen.sound == [codec]
    assert len(seen.packets[0]) > 20
    assert seen.packets == source.packets


def test_every_sound_track_is_kept(make: Make) -> None:
    job = make("a.mkv", sound=["aac", "flac", "mp3"])
    seen = look(run(job, "input/a.mkv"))
    assert seen.sound == ["aac", "aac", "mp3"]
    assert seen.languages == ["ger", "fre", "eng"]
    assert b"Anna" not in (job / "result" / "swap.mp4").read_bytes()  # names of tracks may be names of persons


@pytest.mark.parametrize(("name", "codec"), [("a.mov", "pcm_s16le"), ("a.mkv", "libopus"), ("a.mkv", "flac")])
def test_other_sound_becomes_aac_in_time_and_says_so(
    make: Make, caplog: pytest.LogCaptureFixture, name: str, codec: str
) -> None:
    job = make(name, pts=range(60), sound=[codec], sound_start=0.3)
    with caplog.at_level(logging.INFO):
        result = run(job, f"input/{name}")
    assert look(result).sound == ["aac"]
    assert "transcoded to AAC" in caplog.text
    assert "transcoded to AAC" in (job / "result" / "report.html").read_text()
    before, after = (clicks(*decoded_sound(path)) for path in (job / "input" / name, result))
    assert len(before) == 5
    np.testing.assert_allclose(after, before, atol=0.003)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_sound_that_starts_late_stays_in_time(make: Make, name: str) -> None:
    job = make(name, pts=range(60), sound=["aac"], sound_start=0.7)
    result = run(job, f"input/{name}")
    source = job / "input" / name
    offset = [look(path).times[0] for path in (source, result)]
    before, after = (clicks(*decoded_sound(path)) for path in (source, result))
    assert len(before) == 5
    np.testing.assert_allclose(after - float(offset[1]), before - float(offset[0]), atol=0.0015)
    assert offset[1] == 0


def test_a_hole_in_the_sound_is_not_closed_up(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    path = write_video(tmp_path / "input" / "a.mkv", range(75), sound=["pcm_s16le"], hole=(0.8, 1.3))
    convert(tmp_path, path)
    np.testing.assert_allclose(clicks(*decoded_sound(run(tmp_path, "input/a.mkv"))), [0, 0.5, 1.5, 2, 2.5], atol=0.05)


PART = (22, 57)  # of 75 frames at 25 a second: from 0.84 s to 2.28 s, with the clicks at 1, 1.5 and 2 s


def keep_part(job: Path, first: int, last: int) -> list[Array]:
    """Leave only a part in quarantine, as the convert step does; returns its frames."""
    paths = sorted((job / "quarantine").iterdir())
    for path in paths[: first - 1] + paths[last:]:
        path.unlink()
    return [np.asarray(Image.open(path)) for path in paths[first - 1 : last]]


@pytest.mark.parametrize(
    ("name", "codec", "late"),
    [("a.mp4", "aac", 0), ("a.mkv", "flac", 0), ("a.mov", "pcm_s16le", 0), ("a.ts", "mp2", 0), ("a.mkv", "aac", 0.4)],
)
def test_a_part_has_its_frames_and_exactly_their_sound(make: Make, name: str, codec: str, late: float) -> None:
    job = make(name, pts=range(75), sound=[codec], sound_start=late)
    frames = keep_part(job, *PART)
    result = run(job, f"input/{name}", part="22-57")
    source, seen = look(job / "input" / name), look(result)
    assert seen.times == [Fraction(n, 25) for n in range(36)]
    at = source.times[0]  # a transport stream does not begin at 0
    assert [t + Fraction(21, 25) for t in seen.times] == [t - at for t in source.times[21:57]]
    start, samples = decoded_sound(result)
    was = clicks(*decoded_sound(job / "input" / name)) - float(at)
    np.testing.assert_allclose(clicks(start, samples), [c - 0.84 for c in was if 0.84 < c < 2.28], atol=0.003)
    assert len(clicks(start, samples)) == 3
    assert start + len(samples) / 48000 == pytest.approx(36 / 25, abs=1024 / 48000)  # AAC fills its last frame
    page = (job / "result" / "report.html").read_text()
    assert "Frames 22&ndash;57 of 75" in page
    assert "Frame 24<" in page and "Frame 4<" not in page
    assert len(frames) == len(seen.pictures)
    assert_labelled(seen.pictures, job)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("a.mkv", "flac")])
def test_a_part_before_the_sound_begins_is_silent(make: Make, name: str, codec: str) -> None:
    job = make(name, pts=range(75), sound=[codec, codec], sound_start=2.0)
    keep_part(job, 1, 10)
    result = run(job, f"input/{name}", part="1-10")
    assert len(look(result).times) == 10
    for track in range(2):
        start, samples = decoded_sound(result, track)
        assert np.abs(samples).max() < 1e-3 and start + len(samples) / 48000 <= 10 / 25


def test_time_stamps_that_cannot_be_kept_do_not_move_the_sound(tmp_path: Path) -> None:
    """Picture and sound begin at 1.4 s, and two frames have one time stamp."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        track: Any = out.add_stream("pcm_s16le", rate=48000, layout="stereo")
        for number in range(25):
            frame = av.VideoFrame.from_ndarray(scene(number, 64, 48), "rgb24")
            frame.pts, frame.time_base = 1400 + 40 * number, Fraction(1, 1000)
            for packet in video.encode(frame):
                if number == 6:
                    packet.pts = packet.dts = 1400 + 200
                out.mux(packet)
        out.mux(video.encode(None))
        samples = av.AudioFrame.from_ndarray(tone(1), "s16", "stereo")
        samples.sample_rate, samples.time_base, samples.pts = 48000, Fraction(1, 48000), round(1.4 * 48000)
        out.mux(track.encode(samples))
        out.mux(track.encode(None))
    source = sources.read_source(path, "a.mkv", None)
    assert (source.pts[0], source.start, source.time_base) == (0, Fraction(7, 5), Fraction(1, 25))


def test_a_part_of_an_uneven_rate_keeps_its_time_stamps(make: Make) -> None:
    pts = np.cumsum([0, 40, 33, 17, 120, 40, 500, 41, 7, 40, 40, 33]).tolist()
    job = make(pts=pts, time_base=Fraction(1, 1000), rate=Fraction(25))
    keep_part(job, 5, 9)
    seen = look(run(job, part="5-9"))
    assert seen.times == [Fraction(p - pts[4], 1000) for p in pts[4:9]]
    assert seen.durations == [Fraction(b - a, 1000) for a, b in pairwise(pts[4:10])]


def test_a_part_of_a_folder_of_images(tmp_path: Path) -> None:
    for folder in ("input/a", "quarantine"):
        (tmp_path / folder).mkdir(parents=True)
    for number in range(7):
        picture = Image.fromarray(scene(number, 120, 80))
        picture.save(tmp_path / "input" / "a" / f"img{number:02d}.jpg")
        picture.save(tmp_path / "quarantine" / f"img{number:02d}.png")
    keep_part(tmp_path, 3, 5)
    assert len(look(run(tmp_path, "input/a", part="3-5")).times) == 3
    assert_labelled(look(tmp_path / "result" / "swap.mp4").pictures, tmp_path)


@pytest.mark.parametrize(
    ("part", "reason"),
    [("9-3", "no range"), ("0-3", "no range"), ("5", "no range"), ("3-9", r"input/a.mp4, which has 8")],
)
def test_a_part_that_is_none_is_refused(make: Make, part: str, reason: str) -> None:
    with pytest.raises(sources.JobError, match=reason):
        run(make(pts=range(8)), part=part)


def test_frames_outside_the_part_are_refused(make: Make) -> None:
    with pytest.raises(sources.JobError, match="3 frames that the source does not have"):
        run(make(pts=range(8)), part="3-7")


@pytest.mark.parametrize(
    ("percent", "size", "kept"),
    [
        (80, (128, 96), (128, 96)),
        (200, (320, 240), (320, 240)),
        (77, (123, 92), (122, 92)),
        (83, (133, 100), (132, 100)),
    ],
)
def test_scaled_frames_are_released_in_an_even_size(
    make: Make, percent: int, size: tuple[int, int], kept: tuple[int, int]
) -> None:
    job = make(size=(160, 120), pts=range(4), rotation=90)
    for path in (job / "quarantine").iterdir():
        Image.open(path).resize(size).save(path)
    seen = look(run(job, percent=percent))
    assert (seen.size, seen.pixel_format, seen.rotation) == (kept, "yuv420p", 90)
    page = (job / "result" / "report.html").read_text()
    assert f"{kept[0]} &times; {kept[1]} px" in page
    assert f"{percent} % of the source" in page
    for path in (job / "quarantine").iterdir():
        Image.open(path).crop((0, 0, *kept)).save(path)
    assert_labelled(seen.pictures, job, sources.read_source(job / "input" / "a.mp4", "a", None).matrix)
    with pytest.raises(sources.JobError, match="px where 160x120 are expected"):
        run(job)


@pytest.mark.parametrize("size", [(161, 121), (160, 640), (96, 64), (640, 90)])
def test_the_size_is_kept_and_the_label_lies_inside(make: Make, size: tuple[int, int]) -> None:
    codec = {"pixel_format": "yuv444p"} if size[0] % 2 else {}
    job = make(size=size, pts=range(5), **codec)
    seen = look(run(job))
    assert seen.size == size
    assert seen.pixel_format == ("yuv444p" if size[0] % 2 else "yuv420p")
    assert_labelled(seen.pictures, job)


def assert_labelled(
    pictures: Sequence[Array], job: Path, matrix: tuple[int, ...] | None = None, style: labels.Style | None = None
) -> None:
    """Each picture matches its labelled frame, and not its bare one, where the label is."""
    height, width = pictures[0].shape[:2]
    overlay = labels.draw(style or labels.Style(LABEL), *((height, width) if matrix else (width, height)))
    overlay = to_stored(overlay, matrix).astype(float)
    opacity = overlay[..., 3:] / 255
    inside = opacity[..., 0] > 0
    for picture, path in zip(pictures, sorted((job / "quarantine").iterdir()), strict=True):
        bare = np.asarray(Image.open(path)).astype(float)
        expected = bare * (1 - opacity) + overlay[..., :3] * opacity
        error = np.abs(picture - expected)[inside].mean()
        assert error < 12
        assert error * 4 < np.abs(picture - bare)[inside].mean()
        luma, wanted = picture.mean(axis=-1)[inside], expected.mean(axis=-1)[inside]
        assert np.corrcoef(luma, wanted)[0, 1] > 0.95


def test_every_frame_carries_the_label_and_nothing_else_changes(make: Make) -> None:
    job = make(size=(320, 240), pts=range(40))
    seen = look(run(job))
    assert_labelled(seen.pictures, job)
    clear = labels.draw(labels.Style(LABEL), 320, 240)[..., 3] == 0
    for picture, path in zip(seen.pictures, sorted((job / "quarantine").iterdir()), strict=True):
        assert np.abs(picture.astype(float) - np.asarray(Image.open(path)))[clear].mean() < 4


@pytest.mark.parametrize("size", [(160, 96), (128, 128)])
def test_a_turned_video_stays_turned_and_its_label_is_upright(make: Make, size: tuple[int, int]) -> None:
    job = make(size=size, pts=range(5), rotation=90)
    seen = look(run(job))
    assert (seen.size, seen.rotation) == (size, 90)
    matrix = sources.read_video(job / "input" / "a.mp4", "a").matrix
    assert_labelled(seen.pictures, job, matrix)
    upright = np.rot90(seen.pictures[0], 1)  # counterclockwise, as `rotation` counts
    np.testing.assert_array_equal(labels.to_display(seen.pictures[0], matrix), upright)


def test_frames_that_were_already_turned_upright_are_not_turned_again(make: Make) -> None:
    job = make(size=(160, 96), pts=range(5), rotation=-90)
    for path in (job / "quarantine").iterdir():
        Image.open(path).transpose(Image.Transpose.ROTATE_270).save(path)
    seen = look(run(job))
    assert (seen.size, seen.rotation) == ((96, 160), 0)
    assert_labelled(seen.pictures, job)


@pytest.mark.parametrize("aspect", ["1/2", "16/11", "2"])
def test_the_shape_of_pixels_is_kept(make: Make, aspect: str) -> None:
    job = make(size=(320, 240), pts=range(3), pixel_aspect=Fraction(aspect))
    result = run(job)
    with av.open(str(result)) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(aspect)
    assert label_look.objection(result, labels, json.loads((job / "result" / "label.json").read_text())) is None


@pytest.mark.parametrize("aspect", ["1/12", "49/100", "201/100"])
def test_pixels_that_would_squeeze_the_label_are_refused(make: Make, aspect: str) -> None:
    job = make(pts=range(3), pixel_aspect=Fraction(aspect))
    with pytest.raises(sources.JobError, match=r"times as wide as high, .+: encode it anew with square pixels"):
        run(job)
    assert not (job / "result").exists()


@pytest.mark.parametrize("part", ["", "3-7"])
def test_a_source_s_time_code_is_not_copied(make: Make, part: str) -> None:
    job = make("a.mov", pts=range(8), sound=["aac"], timecode="01:00:00:00")
    if part:
        keep_part(job, 3, 7)
    with (
        av.open(str(job / "input" / "a.mov")) as source,
        av.open(str(run(job, "input/a.mov", part=part))) as container,
    ):
        assert "data" in [stream.type for stream in source.streams]
        assert [stream.type for stream in container.streams] == ["video", "audio"]
    told = json.loads((job / "result" / "label.json").read_text())
    assert label_look.objection(job / "result" / "swap.mp4", labels, told) is None


@pytest.mark.parametrize("colour", [(1, 1, 1, 1), (2, 1, 13, 5), (1, 9, 16, 9), (0, 2, 2, 2)])
def test_colours_and_their_tags_are_kept(make: Make, colour: tuple[int, int, int, int]) -> None:
    options = {} if colour[0] == 0 else {"colour": colour}
    job = make(size=(320, 240), pts=range(4), **options)
    source, seen = look(job / "input" / "a.mp4"), look(run(job))
    assert seen.colour == source.colour == colour
    clear = np.s_[120:]  # the label is above
    for before, after in zip(source.pictures, seen.pictures, strict=True):
        assert (
            np.abs(before[clear].astype(float).mean((0, 1)) - after[clear].mean((0, 1))).max() < 1.5
        )  # a wrong matrix or range shifts by 5 and more


def test_a_folder_of_images_becomes_a_silent_video(tmp_path: Path) -> None:
    for folder in ("input/a", "quarantine"):
        (tmp_path / folder).mkdir(parents=True)
    for number in range(7):
        picture = Image.fromarray(scene(number, 120, 80))
        picture.save(tmp_path / "input" / "a" / f"img{number:02d}.jpg")
        picture.save(tmp_path / "quarantine" / f"img{number:02d}.png")
    seen = look(run(tmp_path, "input/a", rate=Fraction("29.97")))
    assert (len(seen.times), seen.rate, seen.sound, seen.size) == (7, Fraction(2997, 100), [], (120, 80))
    assert_labelled(seen.pictures, tmp_path)


def test_the_file_says_that_it_was_manipulated(make: Make) -> None:
    job = make(pts=range(3))
    metadata = look(run(job, name="anna", style=labels.Style("KI-manipuliert"), language="de")).metadata
    assert metadata["title"] == "KI-manipuliert"
    assert metadata["comment"] == "Die Bilder in diesem Video wurden mit KI manipuliert: Ein Gesicht wurde ersetzt."
    assert not [value for value in metadata.values() if "anna" in value]  # a job's name may be a person's
    page = (job / "result" / "report.html").read_text()
    assert '<strong lang="de">Die Bilder in diesem Video' in page and '<q lang="de">KI-manipuliert</q>' in page


STYLES = [
    labels.Style("Manipulé par IA", "top-right", 4, 60),
    labels.Style("KI-manipuliert", "bottom-left", 10, 100),
    labels.Style("KI-manipuliert: Gesicht getauscht", "bottom-right", 6, 80),
]


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.corner)
@pytest.mark.parametrize(
    "options",
    [
        {"size": (320, 240)},
        {"size": (321, 241), "pixel_format": "yuv444p"},
        {"size": (240, 320), "rotation": 90},
        {"size": (320, 240), "rotation": 180},
        {"size": (320, 240), "pixel_format": "yuv420p10le", "colour": (1, 9, 16, 9)},
        {"size": (320, 240), "colour": (2, 1, 13, 5)},
    ],
    ids=["plain", "odd", "quarter turn", "half turn", "10 bits", "full range"],
)
def test_the_label_is_as_asked_in_every_kind_of_video(
    make: Make, caplog: pytest.LogCaptureFixture, style: labels.Style, options: dict[str, Any]
) -> None:
    job = make(pts=range(3), **options)
    with caplog.at_level(logging.INFO):
        seen = look(run(job, style=style))
    matrix = sources.read_video(job / "input" / "a.mp4", "a").matrix
    told = json.loads((job / "result" / "label.json").read_text())
    assert labels.from_record(told) == style
    shown = [labels.to_display(picture, matrix) for picture in seen.pictures]
    assert (told["width"], told["height"]) == (shown[0].shape[1], shown[0].shape[0])
    assert told["rotation"] == -seen.rotation % 360
    for picture in shown:
        assert labels.presence(picture, style).legible
        for other in labels.CORNERS:
            elsewhere = dataclasses.replace(style, corner=other)
            assert labels.presence(picture, elsewhere).present == (other == style.corner)
    assert re.search(r"Label: \d+\.\d\d s of \d+\.\d\d s\.", caplog.text)


GROUNDS: dict[str, Callable[[int, tuple[int, ...]], Array]] = {
    "white": lambda n, shape: np.full(shape, 255, np.uint8),
    "black": lambda n, shape: np.zeros(shape, np.uint8),
    "noise": lambda n, shape: np.random.default_rng(n).integers(0, 256, shape, np.uint8),
    "flashes": lambda n, shape: np.full(shape, n % 2 * 255, np.uint8),
}


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("size", [(96, 64), (320, 240)])
def test_the_faintest_label_passes_on_every_ground(make: Make, ground: str, size: tuple[int, int]) -> None:
    job = make(size=size, pts=range(8))
    for n, path in enumerate(sorted((job / "quarantine").iterdir())):
        Image.fromarray(GROUNDS[ground](n, (size[1], size[0], 3))).save(path)
    style = labels.Style("Manipulé par IA", "top-left", labels.SIZES[0], labels.OPACITIES[0])
    assert len(look(run(job, style=style)).times) == 8


def faded(picture: Array, bare: Array) -> None:
    picture[...] = (picture * 0.6 + bare * 0.4).astype(np.uint8)


def covered(picture: Array, bare: Array) -> None:
    picture[:40, 30:60] = 0


SPOILT: dict[str, Callable[[Array, Array], None]] = {
    "missing": lambda picture, bare: np.copyto(picture, bare),
    "covered": covered,
    "faded": faded,
}


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("which", [1, 12, 25])
def test_one_frame_without_a_legible_label_and_nothing_is_released(
    make: Make, monkeypatch: pytest.MonkeyPatch, how: str, which: int
) -> None:
    job = make(size=(320, 240), pts=range(25))
    burn = release.Label.burn
    count = 0

    def spoil(self: release.Label, frame: Array) -> None:
        nonlocal count
        count += 1
        bare = frame.copy()
        burn(self, frame)
        if count == which:
            SPOILT[how](frame, bare)

    monkeypatch.setattr(release.Label, "burn", spoil)
    with pytest.raises(sources.JobError, match=rf"in 1 of 25 frames of the encoded video \(number {which}\)"):
        run(job)
    assert list((job / "result").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--size", "3"], "The label's size is 3 %"),
        (["--opacity", "20"], "The label's opacity is 20 %"),
        (["--corner", "middle"], "The label's corner is 'middle'"),
        (["--language", "es"], "The label's language is 'es'"),
    ],
)
def test_limits_hold_on_the_command_line(make: Make, words: list[str], reason: str) -> None:
    job = make(pts=range(3))
    done = subprocess.run(command(job, *words), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert reason in done.stdout and done.stdout.count("\n") == 1
    assert not (job / "result").exists()


def drop(*numbers: int) -> Callable[[Path], None]:
    def spoil(job: Path) -> None:
        for n in numbers:
            (job / "quarantine" / f"a_{n:06d}.png").unlink()

    return spoil


def cut_short(job: Path) -> None:
    path = job / "quarantine" / "a_000004.png"
    path.write_bytes(path.read_bytes()[:400])


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (drop(2, 5, 6), r"lacks 3 of 8 frames \(number 2, 5-6\): run the convert stage"),
    "many": (lambda j: (j / "quarantine" / "a_000009.png").write_bytes(b"x"), "1 frames that the source does not"),
    "size": (lambda j: Image.new("RGB", (80, 60)).save(j / "quarantine" / "a_000003.png"), "a_000003.png has 80x60"),
    "header": (lambda j: (j / "quarantine" / "a_000003.png").write_bytes(b"no"), "a_000003.png cannot be read"),
    "damaged": (cut_short, "a_000004.png cannot be read"),
    "source": (lambda j: (j / "input" / "a.mp4").unlink(), "a.mp4 does not exist"),
    "video": (lambda j: (j / "input" / "a.mp4").write_bytes(b"no video" * 99), "a.mp4 cannot be read as a video"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_sentence_and_releases_nothing(make: Make, fault: str) -> None:
    job = make(pts=range(8))
    earlier = job / "result" / "swap.mp4"
    earlier.parent.mkdir()
    earlier.write_text("the earlier result")
    spoil, reason = FAULTS[fault]
    spoil(job)
    with pytest.raises(sources.JobError, match=reason) as caught:
        run(job)
    assert re.fullmatch(r"[^\n]+: [^\n]+\.", str(caught.value))
    assert {p.name: p.read_text() for p in earlier.parent.iterdir()} == {"swap.mp4": "the earlier result"}


def test_a_sound_file_is_no_source(make: Make) -> None:
    job = make(pts=range(3))
    with av.open(str(job / "input" / "a.mp4"), "w") as out:
        track = out.add_stream("aac", rate=48000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(tone(1), "s16", "stereo")
        frame.sample_rate = 48000
        out.mux(track.encode(frame))
        out.mux(track.encode(None))
    with pytest.raises(sources.JobError, match="no video stream"):
        run(job)


@pytest.mark.parametrize("name", ["", "../x", ".x", "a\nb"])
def test_a_job_name_that_is_no_file_name_is_refused(make: Make, name: str) -> None:
    with pytest.raises(sources.JobError, match="cannot name a file"):
        run(make(pts=range(3)), name=name)


def test_a_result_that_differs_from_its_source_is_not_released(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make(pts=range(12))
    source = sources.read_video(job / "input" / "a.mp4", "a")
    encode = release.encode
    shorter = dataclasses.replace(
        source, pts=source.pts[:-1], durations=source.durations[:-1], frame_names=source.frame_names[:-1]
    )
    monkeypatch.setattr(release, "encode", lambda _source, *rest: encode(shorter, *rest))
    with pytest.raises(sources.JobError, match="11 frames instead of 12"):
        run(job)
    assert list((job / "result").iterdir()) == []


def test_the_command_line_reports_progress_and_faults(make: Make) -> None:
    job = make(pts=range(8))
    good = subprocess.run(command(job), capture_output=True, text=True, timeout=60)
    assert good.returncode == 0, good.stdout + good.stderr
    assert ("8", "8") in re.findall(r"(\d+)/(\d+) \[", good.stderr)
    assert "Releasing: 100%" in good.stderr
    bad = subprocess.run(command(job, label="Not by AI"), capture_output=True, text=True, timeout=60)
    assert bad.returncode == 1
    assert re.fullmatch(
        r"\d\d/\d\d/\d{4} \d\d:\d\d:\d\d ERROR    The label 'AI-manipulated: Not by AI' may be read .+: .+\.\n",
        bad.stdout,
    )
    assert "Traceback" not in bad.stderr


def test_no_room_is_said_in_one_sentence(make: Make) -> None:
    job = make(pts=range(30))

    def small_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    done = subprocess.run(command(job), capture_output=True, text=True, timeout=60, preexec_fn=small_disk)
    assert done.returncode == 1
    assert "There is no room for the result" in done.stdout
    assert "Traceback" not in done.stderr
    assert list((job / "result").iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_release_leaves_nothing_and_the_next_one_works(make: Make, how: signal.Signals) -> None:
    job = make(pts=range(150), size=(320, 240))
    with subprocess.Popen(command(job), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not (job / "result" / ".swap.mp4.part").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(how)
        out, err = process.communicate(timeout=60)
    assert process.returncode == (-9 if how == signal.SIGKILL else 130)
    assert "Traceback" not in err
    left = {p.name for p in (job / "result").iterdir()}
    assert left == ({".swap.mp4.part"} if how == signal.SIGKILL else set())
    if how == signal.SIGINT:
        assert "was interrupted" in out
    assert len(look(run(job)).times) == 150
    assert {p.name for p in (job / "result").iterdir()} == {"swap.mp4", "report.html", "label.json", "log.txt"}


def test_the_video_is_put_in_place_last(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make(pts=range(3))
    replace = Path.replace
    placed: list[str] = []

    def note(self: Path, target: Path) -> Path:
        placed.append(target.name)
        assert self.stat().st_size > 0
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", note)
    run(job)
    assert placed[-1] == "swap.mp4"
    assert set(placed[:-1]) == {"report.html", "label.json", "log.txt"}


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.policy = ""
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "poster", "srcset", "data", "action")]
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"] or ""

    def handle_data(self, data: str) -> None:
        self.text += data


def record(job: Path) -> None:
    """What the supervisor leaves of a job."""
    for stage in ("extract_a", "extract_b", "train", "convert"):
        folder = job / "stages" / stage
        folder.mkdir(parents=True)
        state = {
            "stage": stage,
            "command": ["python", f"{job}/engine/faceswap.py", "-i", f"{job}/input/a.mp4", "<i>"],
            "seconds": 75.0,
            "exit_code": 0,
            "iterations": 1234 if stage == "train" else None,
            "engine": {"name": "minifaceswap", "digest": "0123abcd"},
        }
        (folder / "state.json").write_text(json.dumps(state))
        (folder / "log.txt").write_text(f"log of {stage}\n")
    rows = [f"{n},{0.5 / n},{0.4 / n}" for n in range(1, 900)]
    (job / "stages" / "train" / "losses.csv").write_text("iteration,loss_a,loss_b\n" + "\n".join(rows) + "\n900,0.")


def test_the_page_asks_for_nothing_and_escapes_everything(make: Make) -> None:
    job = make(pts=range(20), sound=["aac"])
    record(job)
    name = '<b>x"&\u2019'
    run(job, name=name)
    page = Page((job / "result" / "report.html").read_text())
    beside = "%3Cb%3Ex%22%26%E2%80%99.mp4"
    assert {link for link in page.links if not link.startswith("data:image/jpeg;base64,")} == {beside}
    assert "default-src 'none'" in page.policy
    assert not {"script", "b", "i", "link", "iframe", "object"} & set(page.tags)
    assert name in page.text
    assert page.tags.count("img") == 16
    for part in (
        "1,234 iterations",
        "1 min 15 s",
        "minifaceswap",
        "0123abcd",
        "JOB/input/a.mp4",
        "C2PA",
        "aac copied",
    ):
        assert part in page.text, part
    assert str(job) not in page.text
    assert "path" in page.tags
    log = (job / "result" / "log.txt").read_text()
    assert re.findall("log of .*", log) == ["log of extract_a", "log of extract_b", "log of train", "log of convert"]


def test_the_page_gives_the_digests_of_what_lies_there(make: Make) -> None:
    job = make(pts=range(3))
    (job / "input" / "b.mp4").write_bytes(b"identity B")
    result = run(job)
    text = (job / "result" / "report.html").read_text()
    for path in (result, job / "input" / "a.mp4", job / "input" / "b.mp4"):
        digest = subprocess.run(["sha256sum", str(path)], capture_output=True, text=True, check=True).stdout.split()[
            0
        ]
        assert digest in text


def test_the_page_shows_the_faces_and_the_labelled_preview(make: Make) -> None:
    job = make(size=(320, 240), pts=range(3))
    record(job)
    for side, persons in (("a", None), ("b", 2)):
        (job / "faces" / side).mkdir(parents=True)
        found = {"faces": 125, "with_face": 120, "size_median": 96, "persons": persons, "warnings": [f"<{side}> few"]}
        (job / "faces" / side / "report.json").write_text(json.dumps(found))
    Image.new("RGB", (640, 480), (200, 30, 30)).save(job / "faces" / "a" / "sheet.jpg")
    (job / "faces" / "b" / "sheet.jpg").write_bytes(b"no picture")
    Image.new("RGB", (640, 320), (30, 200, 30)).save(job / "stages" / "train" / "training_preview.png")
    run(job)
    text = (job / "result" / "report.html").read_text()
    page = Page(text)
    assert page.tags.count("img") == 2 * 3 + 2
    for part in ("Persons told apart", "<a> few", "<b> few", "Some of the faces of A", "125", "120", "96"):
        assert part in page.text, part
    assert "Some of the faces of B" not in page.text
    (shown,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)" alt="Preview', text)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown))).convert("RGB")).astype(int)
    overlay = labels.draw(labels.Style(LABEL), 640, 320)
    assert picture.shape == (320, 640, 3)
    assert picture[overlay[..., 0] > 200].min() > 100  # the letters
    assert np.abs(picture[overlay[..., 3] == 0] - (30, 200, 30)).max() < 60


@pytest.mark.parametrize("content", [b"", b"[]", b'{"warnings": 3, "faces": [1]}', b"\xff"])
def test_the_page_stands_without_a_record_of_faces_that_can_be_read(make: Make, content: bytes) -> None:
    job = make(pts=range(3))
    (job / "faces" / "a").mkdir(parents=True)
    (job / "faces" / "a" / "report.json").write_bytes(content)
    (job / "stages" / "train").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(job / "stages" / "train" / "training_preview.png")  # too small for a label
    run(job)
    assert "Preview of the training" not in (job / "result" / "report.html").read_text()


@pytest.mark.parametrize(
    "content", [None, "", "{", "[]", '{"command": 3, "engine": "x", "seconds": "y", "exit_code": 7}']
)
def test_the_page_stands_without_the_stages_records(make: Make, content: str | None) -> None:
    job = make(pts=range(3))
    if content is not None:
        for stage in ("extract_a", "train"):
            (job / "stages" / stage).mkdir(parents=True)
            (job / "stages" / stage / "state.json").write_text(content)
            (job / "stages" / stage / "losses.csv").write_text(content)
    run(job)
    assert "There is no record of the losses." in (job / "result" / "report.html").read_text()
