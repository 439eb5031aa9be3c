"""What a job's source is: which frames it has, when they are shown, and what else a result must keep of it.

The convert and the release step read a source alike here, so that what the one makes is what the other expects.
"""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from label import PIXEL_ASPECTS
from PIL import ExifTags, Image

IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}

# swscale's name for each YUV matrix of ISO/IEC 23091-2; what is not said is taken for BT.601, as at decoding
SWSCALE_MATRIX = {1: 1, 2: 5, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
NOT_SAID = 2

log = logging.getLogger("release")


class JobError(Exception):
    """One sentence that names the cause and the remedy."""


@dataclass(frozen=True)
class Source:
    """What a released video must keep of its source.

    `width` and `height` are px as stored, before the display matrix turns them. `pts` and `durations` are
    in units of `time_base` seconds, one per frame; `start` (seconds) was taken off them, see `read_video`.
    `matrix` holds FFmpeg's nine display matrix integers. `colour` is the range, primaries, transfer and
    matrix as the code points of ISO/IEC 23091-2 (range: 1 limited, 2 full, 0 not said). Of a part, see `part_of`,
    `first` is the number that its first frame has in the source, and `of` how many frames the source has; 0: whole.
    """

    path: Path
    frame_names: list[str]
    width: int
    height: int
    time_base: Fraction
    pts: list[int]
    durations: list[int]
    rate: Fraction
    start: Fraction = Fraction(0)
    pixel_aspect: Fraction = Fraction(1)
    matrix: tuple[int, ...] | None = None
    colour: tuple[int, int, int, int] = (0, 2, 2, 2)
    sound_tracks: int = 0
    first: int = 1
    of: int = 0

    @property
    def constant_rate(self) -> bool:
        """Whether all frames are shown equally long, but for the rounding of time stamps."""
        return max(self.durations) - min(self.durations) <= 1

    @property
    def seconds(self) -> float:
        """From the first frame's start to the last one's end."""
        return float((self.pts[-1] + self.durations[-1] - self.pts[0]) * self.time_base)

    @property
    def end(self) -> Fraction | None:
        """For how long (s) after `start` a part's sound goes on; None: to its own end."""
        return (self.pts[-1] + self.durations[-1]) * self.time_base if self.of else None


def read_source(path: Path, shown: str, rate: Fraction | None) -> Source:
    """Read a video or a folder of images; `shown` is how messages name it."""
    if path.is_dir():
        return read_images(path, shown, Fraction(25) if rate is None else rate)
    if not path.is_file():
        raise JobError(f"The source {shown} does not exist: put it back, or name another with --source.")
    try:
        return read_video(path, shown)
    except av.error.FFmpegError as error:
        raise JobError(
            f"The source {shown} cannot be read as a video ({error.strerror}): use a video that plays."
        ) from None


def read_images(path: Path, shown: str, rate: Fraction) -> Source:
    """A source which is a folder of images: one frame each, by name, at a constant rate (frames/s)."""
    images = image_files(path)
    if not images:
        raise JobError(f"The source folder {shown} holds no images: put the source's frames there.")
    names = [f"{image.stem}.png" for image in images]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise JobError(f"Two images in {shown} share the name {Path(twice[0]).stem}: rename one and convert again.")
    width, height = image_size(images[0], shown)
    count = len(images)
    return Source(path, names, width, height, 1 / rate, list(range(count)), [1] * count, rate)


def image_files(folder: Path) -> list[Path]:
    """The images of a folder by name; hidden files, such as half-written ones, are passed over."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))


def read_video(path: Path, shown: str) -> Source:
    """Decode a video once and note what must be kept: decoding alone tells which frames there really are.

    Where every stream starts late (MPEG-TS starts at 1.4 s), the earliest start is taken off all of them,
    as FFmpeg does, so that sound and picture keep their distance and the result does not begin with a gap.
    """
    pts: list[int | None] = []
    durations: list[int] = []
    with av.open(str(path)) as container:
        stream = picture_stream(container, shown)
        stream.thread_type = "AUTO"
        first: VideoFrame | None = None
        time_base = exact(stream.time_base)
        for frame in container.decode(stream):
            first = first or frame
            pts.append(frame.pts)
            durations.append(frame.duration)
        if first is None:
            raise JobError(f"The source {shown} has no frame that can be decoded: use a video that plays.")
        pixel_aspect = stream.sample_aspect_ratio or Fraction(1)
        if not PIXEL_ASPECTS[0] <= pixel_aspect <= PIXEL_ASPECTS[1]:
            raise JobError(
                f"The pixels of {shown} are {float(pixel_aspect):.3g} times as wide as high, which would squeeze the "
                "label past reading: encode it anew with square pixels."
            )
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        known = [p for p in pts if p is not None]
        begin = (pts[0] or 0) * time_base
        if len(known) < len(pts) or any(b <= a for a, b in pairwise(known)):
            log.warning("The source's time stamps are missing or not in order: a constant %s frames/s is used.", rate)
            time_base = 1 / rate
            known = list(range(round(begin * rate), round(begin * rate) + len(pts)))
            durations = [1] * len(pts)
        # Containers may leave out how long a frame is shown: then it is until the next one.
        gaps = [b - a for a, b in pairwise(known)]
        gaps.append(durations[-1] or (gaps[-1] if gaps else max(1, round(1 / rate / time_base))))
        starts = [begin]
        starts += [(s.start_time or 0) * exact(s.time_base) for s in container.streams.audio]
        start = max(Fraction(0), min(starts))
        display: Any = first.side_data.get("DISPLAYMATRIX")
        return Source(
            path=path,
            frame_names=[f"{path.stem}_{n:06d}.png" for n in range(1, len(pts) + 1)],
            width=first.width,
            height=first.height,
            time_base=time_base,
            pts=[p - round(start / time_base) for p in known],
            durations=gaps,
            rate=rate,
            start=start,
            pixel_aspect=pixel_aspect,
            matrix=None if display is None else tuple(int(n) for n in np.frombuffer(display, np.int32)),
            colour=(
                first.color_range,
                first.color_primaries,
                first.color_trc,
                # RGB video, and matrices that swscale lacks, go out as BT.601 with nothing said.
                first.colorspace if first.colorspace in SWSCALE_MATRIX else NOT_SAID,
            ),
            sound_tracks=len(container.streams.audio),
        )


def exact(value: Fraction | None) -> Fraction:
    """A time base, which PyAV calls optional although every stream and frame that was read has one."""
    assert value is not None
    return value


def picture_stream(container: InputContainer, shown: str) -> VideoStream:
    """The first video stream that is no cover picture."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    raise JobError(f"The source {shown} has no video stream: use a video, not a sound file.")


def image_size(path: Path, shown: str) -> tuple[int, int]:
    """Width and height in px from an image's header, as its EXIF orientation has it displayed."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            return image.size[::-1] if turned else image.size
    except OSError:
        raise JobError(
            f"{shown}/{path.name} cannot be read as an image: delete it and run the convert stage again."
        ) from None


def part_of(source: Source, frames: str, shown: str) -> Source:
    """The source as if it had only the frames of a range such as `45-90`, from 1 and both included; "": all."""
    if not frames:
        return source
    found = re.fullmatch(r"(\d+)-(\d+)", frames)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise JobError(f"The frames {frames!r} are no range: write first-last, such as 45-90.")
    first, last, count = int(found[1]), int(found[2]), len(source.pts)
    if last > count:
        raise JobError(f"The frames {frames} go beyond {shown}, which has {count}: give a range within it.")
    if last - first + 1 == count:
        return source
    begin, part = source.pts[first - 1], slice(first - 1, last)
    return replace(
        source,
        frame_names=source.frame_names[part],
        pts=[p - begin for p in source.pts[part]],
        durations=source.durations[part],
        start=source.start + begin * source.time_base,
        first=first,
        of=count,
    )


def scaled(size: tuple[int, int], percent: int) -> tuple[int, int]:
    """Width and height of a frame that Faceswap's convert scales with `-O percent`."""
    scale = percent / 100
    return round(size[0] / 2 * scale * 2), round(size[1] / 2 * scale * 2)


def spans(numbers: Sequence[int], limit: int = 5) -> str:
    """Sorted numbers as text, runs drawn together: `3, 7-9`; the rest after `limit` runs as `...`."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    texts = [str(a) if a == b else f"{a}-{b}" for a, b in runs[:limit]]
    return ", ".join(texts + ["..."] * (len(runs) > limit))
