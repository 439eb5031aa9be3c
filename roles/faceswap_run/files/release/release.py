"""Release a job: the only way out of quarantine.

`python release.py JOB_DIR --job NAME --source input/a.mp4 --frames quarantine --output result --label TEXT`
burns a visible label into every converted frame (label.py), encodes once, and keeps the source's frame count, time
stamps, size, rotation, colour tags and sound. It writes NAME.mp4, report.html, label.json and log.txt.

With `--part 45-90` the result is that part of the source, with the sound of just that time; with `--scale 50` the
frames have that size in per cent.

Nothing appears under a final name before all files are complete and the video was read back, compared with its
source, and seen to carry the label on every frame. The video is renamed into place last, so that there is never a
released video without its report and log; a run that is killed leaves at most hidden `.part` files, which the next
one overwrites.

Runs with the engine's Python: PyAV, NumPy, Pillow and tqdm, no program beside it.
"""

import argparse
import errno
import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import report
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.codec.context import Flags
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation
from label import (
    CORNERS,
    DEFAULT_OPACITY,
    DEFAULT_SIZE,
    DEFAULT_TEXTS,
    SENTENCES,
    LabelError,
    Score,
    Style,
    checked,
    draw,
    rotation,
    swaps_axes,
    template_of,
    to_display,
)
from numpy.typing import NDArray
from PIL import Image, ImageOps
from sources import (
    SWSCALE_MATRIX,
    JobError,
    Source,
    exact,
    image_files,
    image_size,
    part_of,
    picture_stream,
    read_source,
    scaled,
    spans,
)
from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

sys.path.append(str(Path(__file__).resolve().parents[1]))

import gate  # it is the supervisor's neighbour

Bytes = NDArray[np.uint8]

STRIP = 8  # before/after pairs in the report

COPIED_CODECS = {"aac", "ac3", "alac", "eac3", "mp3"}  # what common players play from an mp4
AAC_RATES = {8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000}  # Hz
AAC_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
LEAD = 1  # s; a decoder is fed from so long before a part's sound
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


# swscale's default path darkens 4:2:0 by about one level of 255
ROUNDING = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT

log = logging.getLogger("release")


def match_frames(source: Source, folder: Path, shown: str, percent: int) -> Source:
    """Check that the quarantine holds exactly one frame of the right size for each frame of the source.

    Returns the source as its result will be. A reader that honours the display matrix hands the engine upright
    pictures, and then there is nothing left to turn at display. Frames that were scaled lose the last column or row
    where that makes a size even, which is what most players want.
    """
    if not folder.is_dir():
        raise JobError(f"There is no folder {shown}: run the convert stage first.")
    present = {p.name for p in folder.iterdir() if p.suffix.lower() == ".png" and not p.name.startswith(".")}
    wanted = source.frame_names
    missing = [n for n, name in enumerate(wanted, source.first) if name not in present]
    if missing:
        raise JobError(
            f"{shown} lacks {len(missing)} of {len(wanted)} frames (number {spans(missing)}): "
            "run the convert stage again."
        )
    surplus = sorted(present - set(wanted))
    if surplus:
        raise JobError(
            f"{shown} holds {len(surplus)} frames that the source does not have ({surplus[0]} is the first): "
            "empty it and run the convert stage again."
        )
    sizes = [image_size(folder / name, shown) for name in wanted]
    size = scaled((source.width, source.height), percent)
    upright = scaled((source.height, source.width), percent)
    result = source
    if source.matrix and swaps_axes(source.matrix) and sizes[0] == upright != size:
        size = upright
        result = replace(source, pixel_aspect=1 / source.pixel_aspect, matrix=None)
    for name, found in zip(wanted, sizes, strict=True):
        if found != size:
            raise JobError(
                f"{shown}/{name} has {found[0]}x{found[1]} px where {size[0]}x{size[1]} are expected of the source: "
                "empty the folder and run the convert stage again with the same source and scale."
            )
    width, height = size if percent == 100 else (max(2, size[0] // 2 * 2), max(2, size[1] // 2 * 2))
    return replace(result, width=width, height=height)


class Label:
    """The label laid over frames as they are stored, and looked for in them; `seconds` is how long that took."""

    def __init__(self, style: Style, source: Source) -> None:
        started = time.perf_counter()
        self.style, self._matrix = style, source.matrix
        self.size = source.width, source.height  # px as displayed, but for the shape of a pixel
        if source.matrix and swaps_axes(source.matrix):
            self.size = source.height, source.width
        layout, self._template = template_of(style, *self.size)
        rows, columns = layout.ink.shape
        self._box = np.s_[layout.top : layout.top + rows, layout.left : layout.left + columns]
        ink = layout.ink[..., None]
        keep = np.round(256 * (1 - style.opacity_percent / 100) * (1 - ink))
        self._keep = keep.astype(np.uint16)
        self._add = np.minimum(np.round(256 * 255 * ink) + 128, 65535 - 255 * keep).astype(np.uint16)
        self.seconds = time.perf_counter() - started

    def burn(self, frame: Bytes) -> None:
        """Lay the label over an RGB frame (height, width, 3), in place."""
        started = time.perf_counter()
        box = to_display(frame, self._matrix)[self._box]
        box[...] = (box * self._keep + self._add) >> 8
        self.seconds += time.perf_counter() - started

    def seen(self, frame: VideoFrame) -> Score:
        """How well a decoded frame, which is YUV, shows the label."""
        started = time.perf_counter()
        plane: Any = frame.planes[0]  # a buffer, which PyAV's types do not say
        luma: Bytes = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]
        grey = to_display(luma, self._matrix)[self._box].astype(np.float32)
        if frame.color_range != ColorRange.JPEG:  # black is 16 and white 235
            grey = (grey - 16) * (255 / 219)
        score = self._template.score(grey)
        self.seconds += time.perf_counter() - started
        return score

    def record(self) -> dict[str, Any]:
        """What somebody needs to draw and look for the label in a frame that was turned upright."""
        return {
            "text": self.style.text,
            "corner": self.style.corner,
            "size": self.style.size_percent,
            "opacity": self.style.opacity_percent,
            "width": self.size[0],
            "height": self.size[1],
            "rotation": rotation(self._matrix),
        }


class Sound:
    """The source's sound tracks on their way into the result: copied where an mp4 takes them, else AAC."""

    def __init__(self, source: Source, shown: str, container: InputContainer | None, out: OutputContainer) -> None:
        self.notes: list[str] = []
        self._start, self._end = source.start, source.end
        self._tracks: dict[int, tuple[AudioStream, AudioStream, AudioResampler | None]] = {}
        for number, stream in enumerate(container.streams.audio if container else (), 1):
            if stream.codec_context is None:
                raise JobError(f"Sound track {number} of {shown} has an unknown codec: convert it to AAC first.")
            codec = stream.codec_context.codec.canonical_name
            if codec in COPIED_CODECS and self._end is None:
                target = out.add_stream_from_template(stream)
                self._tracks[stream.index] = (stream, target, None)
                self.notes.append(f"{codec} copied")
            else:
                rate = stream.rate if stream.rate in AAC_RATES else 48000
                layout = AAC_LAYOUTS.get(stream.channels, "stereo")
                target = out.add_stream("aac", rate=rate, layout=layout)
                target.bit_rate = 96_000 * target.channels
                # async: fills holes in the track with silence, which the encoder would otherwise close up.
                resampler = AudioResampler("fltp", layout, rate, frame_size=1024, options={"async": "1"})
                self._tracks[stream.index] = (stream, target, resampler)
                why = "as an mp4 does not take it everywhere" if self._end is None else "cut to the part's length"
                self.notes.append(f"{codec} transcoded to AAC, {why}")
            # No title: it may be a person's name.
            target.metadata.update({k: v for k, v in stream.metadata.items() if k == "language"})
            target.disposition = stream.disposition
        self._waiting = self._packets(container)
        self._next = next(self._waiting, None)

    def _packets(self, container: InputContainer | None) -> Iterator[tuple[Fraction, "list[Packet[Any]]"]]:
        """Packets for the result and the time (s) at which they belong, in the source's order."""
        if container is None or not self._tracks:
            return
        heard: set[int] = set()  # tracks with sound within the part; one without would be no track
        for packet in container.demux(*container.streams.audio):
            stream, target, resampler = self._tracks[packet.stream.index]
            when = (packet.dts or 0) * exact(packet.time_base) - self._start
            shift = round(self._start / exact(packet.time_base))
            if resampler is None:
                if packet.dts is None:  # the demuxer's end mark
                    continue
                packet.pts = None if packet.pts is None else packet.pts - shift
                packet.dts -= shift
                packet.stream = target
                yield when, [packet]
                continue
            if packet.dts is not None and self._end is not None and not -LEAD <= when <= self._end + LEAD:
                continue
            frames = stream.decode(packet)
            for frame in frames:
                if frame.pts is not None:
                    frame.pts -= round(self._start / exact(frame.time_base))
            if self._end is not None:
                frames = [piece for frame in frames if (piece := cut(frame, self._end))]
            ready = [r for frame in frames for r in resampler.resample(frame)]
            if packet.dts is None:
                ready += resampler.resample(None)
                if not ready and packet.stream.index not in heard:
                    ready = [silence(target)]
            if ready:
                heard.add(packet.stream.index)
            coded = [p for frame in ready for p in target.encode(frame)]
            yield when, coded + (target.encode(None) if packet.dts is None else [])

    def mux(self, out: OutputContainer, until: Fraction | None) -> None:
        """Write what belongs before a time (s), or all that is left."""
        while self._next is not None and (until is None or self._next[0] <= until):
            out.mux(self._next[1])
            self._next = next(self._waiting, None)


def silence(track: AudioStream) -> AudioFrame:
    """A moment of silence at time 0 of a track."""
    frame = AudioFrame.from_ndarray(np.zeros((track.channels, 1024), np.float32), "fltp", track.layout.name)
    frame.sample_rate, frame.time_base, frame.pts = track.rate, Fraction(1, track.rate), 0
    return frame


def cut(frame: AudioFrame, end: Fraction) -> AudioFrame | None:
    """The samples of a sound frame from time 0 to `end` (s); None: it has none of these."""
    if frame.pts is None:
        return None
    at = round(frame.pts * exact(frame.time_base) * frame.rate)  # samples; the frame may begin before time 0
    first, last = max(0, -at), min(frame.samples, math.ceil(end * frame.rate) - at)
    if first >= last:
        return None
    width = 1 if frame.format.is_planar else len(frame.layout.channels)  # packed: the channels' samples alternate
    samples: NDArray[Any] = np.ascontiguousarray(frame.to_ndarray()[:, first * width : last * width])
    piece = AudioFrame.from_ndarray(samples, frame.format.name, frame.layout.name)
    piece.sample_rate, piece.time_base, piece.pts = frame.rate, Fraction(1, frame.rate), at + first
    return piece


def encode(source: Source, shown: str, frames: Path, label: Label, about: str, target: Path) -> list[str]:
    """Label and encode every frame once into `target`, with the source's sound; returns notes on it.

    `about` goes into the file as its comment.
    """
    odd = source.width % 2 or source.height % 2
    if odd:
        log.warning(
            "The source's size %dx%d is odd, which 4:2:0 video cannot hold: 4:4:4 is used to keep it, which "
            "some players do not play.",
            source.width,
            source.height,
        )
    # A late start is kept in units of the movie's time scale, which is milliseconds if nothing is said.
    scale = source.time_base.denominator
    scale *= math.ceil(10_000 / scale)
    options = {"movflags": "+faststart", "movie_timescale": str(scale)}
    with ExitStack() as stack:
        sound_source = stack.enter_context(av.open(str(source.path))) if source.sound_tracks else None
        out = stack.enter_context(av.open(str(target), "w", format="mp4", options=options))
        out.metadata.update({"title": label.style.text, "comment": about})
        coding = {"crf": "18"}
        if not source.constant_rate:
            # An mp4 keeps durations in coding order: frames of their own length need it to be display order.
            coding["bf"] = "0"
        stream = out.add_stream("libx264", rate=source.rate, options=coding)
        stream.width, stream.height = source.width, source.height
        stream.pix_fmt = "yuv444p" if odd else "yuv420p"
        context = stream.codec_context
        context.flags |= Flags.frame_duration  # else the last frame would be shown for the mean duration
        context.time_base = source.time_base
        context.sample_aspect_ratio = source.pixel_aspect
        stream.set_display_matrix(source.matrix)
        context.color_range, context.color_primaries, context.color_trc, context.colorspace = source.colour
        sound = Sound(source, shown, sound_source, out)
        steps = zip(source.frame_names, source.pts, source.durations, strict=True)
        total = len(source.frame_names)
        for name, pts, duration in tqdm(steps, "Releasing", total, ascii=True, mininterval=0.5, ncols=80):
            picture = np.ascontiguousarray(read_frame(frames / name)[: source.height, : source.width])
            label.burn(picture)
            frame = to_yuv(picture, stream.pix_fmt, source.colour)
            frame.pts, frame.duration, frame.time_base = pts, duration, source.time_base
            sound.mux(out, until=pts * source.time_base)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        sound.mux(out, until=None)
    return sound.notes


def read_frame(path: Path) -> Bytes:
    """A converted frame as writable RGB (height, width, 3)."""
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for a damaged file
        raise JobError(
            f"{path.parent.name}/{path.name} cannot be read ({error}): delete it and run convert again."
        ) from None


def to_yuv(picture: Bytes, pixel_format: str, colour: tuple[int, int, int, int]) -> VideoFrame:
    """An RGB picture as YUV with the source's range and matrix, the inverse of how it was decoded."""
    frame = VideoFrame.from_ndarray(picture, "rgb24")
    frame = frame.reformat(
        format=pixel_format,
        dst_colorspace=SWSCALE_MATRIX[colour[3]],
        dst_color_range=colour[0] or ColorRange.MPEG,
    )
    frame.color_range, frame.color_primaries, frame.color_trc, frame.colorspace = colour
    return frame


def verify(source: Source, path: Path, numbers: Sequence[int], label: Label) -> dict[int, Image.Image]:
    """Read a result back, compare it with what it must keep of its source, and look for the label in every frame.

    Returns the frames with these numbers (from 0) as displayed.

    Raises:
        JobError: says what differs.
    """
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        times = []
        sizes = set()
        sample = {}
        unlabelled = []
        for number, frame in enumerate(container.decode(stream)):
            if not label.seen(frame).legible:
                unlabelled.append(number + source.first)
            if number in numbers:
                sample[number] = displayed(frame, source)
            times.append(None if frame.pts is None else frame.pts * exact(frame.time_base))
            sizes.add((frame.width, frame.height))
        seconds = float((stream.duration or 0) * exact(stream.time_base))
        tracks = len(container.streams.audio)
    differs = None
    if len(times) != len(source.pts):
        differs = f"has {len(times)} frames instead of {len(source.pts)}"
    elif sizes != {(source.width, source.height)}:
        differs = f"has frames of {sizes} px instead of {source.width}x{source.height}"
    elif times != [pts * source.time_base for pts in source.pts]:
        differs = "has other time stamps than the source"
    elif abs(seconds - source.seconds) > max(0.002, float(source.durations[-1] * source.time_base) / 2):
        differs = f"lasts {seconds:.3f} s instead of {source.seconds:.3f} s"
    elif tracks != source.sound_tracks:
        differs = f"has {tracks} sound tracks instead of {source.sound_tracks}"
    if differs:
        raise JobError(f"The encoded video {differs}, so nothing was released: run it again.")
    if unlabelled:
        raise JobError(
            f"The label cannot be read in {len(unlabelled)} of {len(times)} frames of the encoded video (number "
            f"{spans(unlabelled)}), so nothing was released: give it a larger size, more opacity or another corner."
        )
    return sample


def source_pictures(source: Source, numbers: Sequence[int]) -> dict[int, Image.Image]:
    """The source's frames with these numbers (ascending from 0, counted within its part) as displayed."""
    skipped = source.first - 1
    if source.path.is_dir():
        files = image_files(source.path)[skipped:]
        sample = {}
        for number in numbers:
            with Image.open(files[number]) as image:
                sample[number] = ImageOps.exif_transpose(image).convert("RGB")
        return sample
    with av.open(str(source.path)) as container:
        stream = picture_stream(container, source.path.name)
        stream.thread_type = "AUTO"
        frames = islice(container.decode(stream), skipped, skipped + numbers[-1] + 1)
        return {n: displayed(f, source) for n, f in enumerate(frames) if n in numbers}


def displayed(frame: VideoFrame, source: Source) -> Image.Image:
    """A decoded frame as a player shows it: turned, and with square pixels."""
    picture = frame.to_ndarray(format="rgb24", interpolation=ROUNDING).astype(np.uint8, copy=False)
    image = Image.fromarray(np.ascontiguousarray(to_display(picture, source.matrix)))
    if source.pixel_aspect == 1:
        return image
    turned = source.matrix is not None and swaps_axes(source.matrix)
    stretched = 1 / source.pixel_aspect if turned else source.pixel_aspect
    return image.resize((round(image.width * stretched), image.height))


def labelled_preview(path: Path, style: Style) -> Image.Image | None:
    """The training's preview, which shows swapped faces, with the label burnt in; None: there is none."""
    picture = report.read_picture(path)
    if picture is None:
        return None
    try:
        overlay = Image.fromarray(draw(style, *picture.size), "RGBA")
    except LabelError:  # too small for a label, and so for the page
        return None
    picture.paste(overlay, mask=overlay)
    return picture


def sync(path: Path) -> None:
    """Have a file's or folder's content on the disk before its name says that it is there."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def release(
    job: Path,
    name: str,
    source_path: Path,
    frames: Path,
    output: Path,
    style: Style,
    rate: Fraction | None = None,
    part: str = "",
    percent: int = 100,
    language: str = "en",
) -> None:
    """Do it all; the paths are relative to the job folder or absolute.

    `rate` is in frames/s, for a folder of images; `part` a range of frames such as `45-90`, or all; `percent` the
    size to which the frames were scaled; `language` that of the label.

    Raises:
        JobError, LabelError: what stops the release, before anything has a final name.
    """
    if not name or name.startswith(".") or "/" in name or not name.isprintable() or len(name.encode()) > 200:
        raise JobError(
            f"The job name {name!r} cannot name a file: use up to 200 letters, digits, '-' or '_' with --job."
        )
    started, clock = time.time(), time.perf_counter()
    source = part_of(read_source(job / source_path, str(source_path), rate), part, str(source_path))
    kept = match_frames(source, job / frames, str(frames), percent)
    label = Label(style, kept)
    folder = job / output
    folder.mkdir(parents=True, exist_ok=True)
    log.info("Releasing %d frames of %s with the label '%s'.", len(kept.pts), source_path, style.text)

    finals = [folder / n for n in ("log.txt", "report.html", "label.json", f"{name}.mp4")]
    parts = [final.with_name(f".{final.name}.part") for final in finals]
    try:
        notes = encode(kept, str(source_path), job / frames, label, SENTENCES[language], parts[-1])
        count = min(STRIP, len(kept.pts))
        numbers = [(2 * n + 1) * len(kept.pts) // (2 * count) for n in range(count)]
        after = verify(kept, parts[-1], numbers, label)
        before = source_pictures(source, numbers)
        for note in notes:
            log.info("Sound: %s.", note)
        parts[1].write_text(
            report.render(
                report.Result(
                    job=job,
                    name=name,
                    video=parts[-1],
                    video_name=finals[-1].name,
                    source=job / source_path,
                    label=style.text,
                    language=language,
                    frames=len(kept.pts),
                    first=kept.first,
                    of=kept.of,
                    percent=percent,
                    size=(kept.width, kept.height),
                    rate=kept.rate,
                    constant_rate=kept.constant_rate,
                    seconds=kept.seconds,
                    sound=notes,
                    started=started,
                    pairs=[(n + kept.first, before[n], after[n]) for n in numbers],
                    preview=labelled_preview(job / "stages" / "train" / "training_preview.png", style),
                )
            ),
            encoding="utf-8",
        )
        parts[2].write_text(json.dumps(label.record(), ensure_ascii=False) + "\n", encoding="utf-8")
        log.info("Label: %.2f s of %.2f s.", label.seconds, time.perf_counter() - clock)
        parts[0].write_text(report.joined_logs(job), encoding="utf-8")
        for path in parts:
            sync(path)
        for path, final in zip(parts, finals, strict=True):
            path.replace(final)
        sync(folder)
    finally:
        for path in parts:
            path.unlink(missing_ok=True)
    log.info("Released %s.", output / finals[-1].name)


def frame_rate(text: str) -> Fraction:
    """A rate in frames/s such as 25, 29.97 or 30000/1001."""
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is no rate: give frames/s such as 25 or 30000/1001")
    return rate


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Label, encode and release the converted frames of a job.")
    parser.add_argument("job_folder", type=Path, metavar="JOB_DIR", help="other paths may be relative to it")
    parser.add_argument("--job", required=True, metavar="NAME", help="names the result, NAME.mp4")
    parser.add_argument("--source", required=True, type=Path, help="identity A's video or folder of images")
    parser.add_argument("--frames", required=True, type=Path, help="folder of converted frames (quarantine)")
    parser.add_argument("--output", required=True, type=Path, help="folder of the result")
    parser.add_argument("--label", default="", metavar="TEXT", help="own text, behind the language's")
    parser.add_argument("--language", default="en", help=f"of the label, one of {', '.join(DEFAULT_TEXTS)} (en)")
    parser.add_argument("--corner", default=CORNERS[0], help=f"one of {', '.join(CORNERS)} ({CORNERS[0]})")
    parser.add_argument(
        "--size", type=int, default=DEFAULT_SIZE, metavar="PERCENT", help="text height by the shorter side"
    )
    parser.add_argument(
        "--opacity", type=int, default=DEFAULT_OPACITY, metavar="PERCENT", help="of the box behind the text"
    )
    parser.add_argument(
        "--fps", type=frame_rate, help="frames/s of a folder of images (default: 25); a video has its own"
    )
    parser.add_argument("--part", default="", metavar="FIRST-LAST", help="only these frames, counted from 1")
    parser.add_argument("--scale", type=int, default=100, metavar="PERCENT", help="size of the frames (100)")
    args = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)-8s %(message)s",
        datefmt="%m/%d/%Y %H:%M:%S",
        stream=sys.stdout,
    )
    try:
        job = args.job_folder.resolve()
        gate.admit_by_hand("release", job / args.source, frames=job / args.frames, output=job / args.output)
        release(
            args.job_folder.resolve(),
            args.job,
            args.source,
            args.frames,
            args.output,
            checked(args.label, args.language, args.corner, args.size, args.opacity),
            args.fps,
            args.part,
            args.scale,
            args.language,
        )
    except gate.GateError as error:
        log.error("%s", error)
        return error.code
    except (JobError, LabelError) as error:
        log.error("%s", error)
    except KeyboardInterrupt:
        log.error("The release was interrupted, nothing was released: run it again.")
        return 130
    except (OSError, av.error.FFmpegError) as error:
        if error.errno in NO_ROOM:
            log.error("There is no room for the result in %s: free some space and run release again.", args.output)
        else:
            log.error("The release stopped (%s), nothing was released: mend the cause and run it again.", error)
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
