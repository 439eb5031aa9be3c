"""Looks at a source before hours are spent on it, and cuts frames out of it.

A source is a video or a folder of images. Needs PyAV, NumPy, Pillow and tqdm, which every engine has.
"""

import math
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
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
from numpy.typing import NDArray
from PIL import ExifTags, Image
from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

Bytes = NDArray[np.uint8]
Matrix = NDArray[np.float64]

# What each engine takes; the release step takes the images of both.
FACESWAP_VIDEOS = {".avi", ".flv", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".vob", ".webm", ".wmv"}
FACESWAP_IMAGES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff"}
IMAGES = FACESWAP_IMAGES | {".webp"}

SHOWN_AT_ONCE = 3  # names of files in a sentence


class MediaError(Exception):
    """One sentence that names the cause and the remedy."""


@dataclass(frozen=True)
class Look:
    """What a source is: `width` and `height` in px as stored, `rate` in frames/s (None for images).

    `turn` is by how many quarter turns counterclockwise a stored frame comes upright.
    """

    frames: int
    width: int
    height: int
    rate: float | None = None
    constant_rate: bool = True
    turn: int = 0

    def facts(self) -> str:
        """The source in words."""
        rate = f", {self.rate:g} frames/s" if self.rate else ""
        uneven = "" if self.constant_rate else " on average, unevenly"
        turned = f", shown turned by {360 - 90 * self.turn} degrees" if self.turn else ""
        return f"{self.frames} frames of {self.width}x{self.height} px{rate}{uneven}{turned}"


def look(path: Path, faceswap: bool, converted: bool) -> Look:
    """Decode all of a source. MediaError where it cannot be worked on.

    `faceswap`: the engine is the real Faceswap, which takes fewer kinds of files than the built-in one. `converted`:
    its frames will be swapped and released too, which needs them in one size and told apart by their names.
    """
    if not path.exists():
        raise MediaError(f"{path} is missing: bring the source again.")
    return _look_at_images(path, faceswap, converted) if path.is_dir() else _look_at_video(path, faceswap)


# -- folders of images -----------------------------------------------------------------------------------------------


def image_files(folder: Path) -> list[Path]:
    """The images of a folder by name; hidden files, such as half-written ones, are passed over."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGES and not p.name.startswith("."))


def _look_at_images(folder: Path, faceswap: bool, converted: bool) -> Look:
    images = image_files(folder)
    if not images:
        raise MediaError(f"The folder {folder} holds no images: put the frames there as png or jpg, or give a video.")
    if faceswap:
        _refuse(
            [p for p in images if p.suffix.lower() not in FACESWAP_IMAGES], "an ending that Faceswap does not know"
        )
    twins = Counter(p.stem for p in images)
    _refuse([p for p in images if twins[p.stem] > 1], "the name of another but for the ending")
    sizes: Counter[tuple[int, int]] = Counter()
    turned = []
    for path in tqdm(images, "Looking at the source", file=sys.stdout):
        try:
            with Image.open(path) as image:
                image.load()
                sizes[image.size] += 1
                if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                    turned.append(path)
                if faceswap and image.mode in ("RGBA", "LA", "PA"):
                    _refuse([path], "an alpha channel, which Faceswap cannot train on")
        except (OSError, SyntaxError, ValueError) as error:
            raise MediaError(f"{path} cannot be read as an image ({error}): replace or remove it.") from None
    if faceswap:
        _refuse(turned, "an EXIF orientation, which Faceswap does not follow: save it upright")
    if converted and len(sizes) > 1:
        raise MediaError(
            f"The images in {folder} are of {len(sizes)} sizes and are to be frames of one video: scale them to one."
        )
    (width, height), _ = sizes.most_common(1)[0]
    return Look(len(images), width, height)


def _refuse(images: list[Path], why: str) -> None:
    if images:
        more = f" and {len(images) - SHOWN_AT_ONCE} more" if len(images) > SHOWN_AT_ONCE else ""
        names = ", ".join(path.name for path in images[:SHOWN_AT_ONCE])
        raise MediaError(f"{names}{more} in {images[0].parent} has {why}: convert, rename or remove it.")


# -- videos ----------------------------------------------------------------------------------------------------------


def _look_at_video(path: Path, faceswap: bool) -> Look:
    if faceswap and path.suffix.lower() not in FACESWAP_VIDEOS:
        raise MediaError(
            f"Faceswap goes by the ending of a file's name and does not know {path.suffix or 'one without'}: "
            "rename the video to .mp4 or .mkv, its content need not change."
        )
    pts: list[int | None] = []
    with _open(path) as container:
        stream = _picture(container, path)
        shown = sum(not entry.is_discard for entry in stream.index_entries)  # an edit list may hide some
        promised = min(stream.frames, shown or stream.frames)
        rate = stream.average_rate or stream.guessed_rate
        first: VideoFrame | None = None
        with tqdm(desc="Looking at the source", total=promised or None, file=sys.stdout) as bar:
            for frame in _decode(container, stream, path):
                first = first or frame
                if frame.width != first.width or frame.height != first.height:
                    raise MediaError(f"{path} changes its size at frame {len(pts) + 1}: convert it to one size.")
                pts.append(frame.pts)
                bar.update()
    assert first is not None
    if len(pts) < promised - max(2, promised // 50):
        raise MediaError(
            f"{path} ends early: {len(pts)} of {promised} frames can be decoded; copy it again from where it came."
        )
    known = [p for p in pts if p is not None]
    gaps = [b - a for a, b in pairwise(known)]
    return Look(
        frames=len(pts),
        width=first.width,
        height=first.height,
        rate=round(float(rate), 3) if rate else None,
        constant_rate=not gaps or max(gaps) - min(gaps) <= 1,
        turn=_turn_of(first),
    )


def _open(path: Path) -> InputContainer:
    """Open a video. MediaError where that fails, or where the file ends before what it says it holds."""
    size = path.stat().st_size
    if not size:
        raise MediaError(f"{path} is empty (0 bytes): copy it again from where it came.")
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise MediaError(
            f"{path} is no video that can be opened ({error.strerror}): it may be cut off, copy it again."
        ) from None
    for stream in container.streams.video:
        if any(entry.pos + entry.size > size for entry in stream.index_entries):
            container.close()
            raise MediaError(f"{path} is cut off before its last frame: copy it again from where it came.")
    return container


def _picture(container: InputContainer, path: Path) -> VideoStream:
    """The first video stream, which every engine takes."""
    if not container.streams.video:
        raise MediaError(f"{path} has no video stream: give a video, not a sound file.")
    stream = container.streams.video[0]
    if stream.disposition & Disposition.attached_pic:
        raise MediaError(f"{path} begins with a cover picture, which would be taken for the video: remove it.")
    # PyAV types it as always there, and has None where FFmpeg has no decoder.
    context: Any = stream.codec_context
    if context is None:
        raise MediaError(f"{path} is in a codec that this host cannot decode: convert it to H.264.")
    stream.thread_type = "AUTO"
    return stream


def _decode(container: InputContainer, stream: VideoStream, path: Path) -> Iterator[VideoFrame]:
    """All frames; a damaged one is an error, as the engines and the release step count differently after it."""
    number = 0
    try:
        for frame in container.decode(stream):
            number += 1
            yield frame
    except av.error.FFmpegError as error:
        raise MediaError(
            f"{path} cannot be decoded after frame {number} ({error.strerror}): copy it again, or cut it off there."
        ) from None
    if not number:
        raise MediaError(f"{path} has no frame that can be decoded: give a video that plays.")


def turn_of(path: Path) -> int:
    """By how many quarter turns counterclockwise the frames of a source come upright."""
    if path.is_dir():
        return 0
    with _open(path) as container:
        return _turn_of(next(_decode(container, _picture(container, path), path)))


def _turn_of(frame: VideoFrame) -> int:
    """The quarter turns in a frame's display matrix; a mirror in it is left as it is, faces are found in mirrors too.

    FFmpeg's matrix (a b u, c d v, x y w) shows a stored point at x' = ax + cy, y' = bx + dy, with y downwards.
    """
    display: Any = frame.side_data.get("DISPLAYMATRIX")
    if display is None:
        return 0
    a, b, _, c, d = (int(n) for n in np.frombuffer(display, np.int32)[:5])
    if a * d - b * c < 0:
        a, c = -a, -c
    return round(math.atan2(c, a) / (math.pi / 2)) % 4


def upright(stored: Bytes, turn: int) -> Bytes:
    """A picture (height, width, 3) turned counterclockwise by quarter turns."""
    return np.ascontiguousarray(np.rot90(stored, turn))


def back(turn: int, width: int, height: int, edge: int = 1) -> Matrix:
    """Matrix (3, 3) from points of an upright picture to those of the stored one of `width` x `height` px.

    `edge` is 1 where whole numbers are the middle of a pixel, as in Faceswap, and 0 where they are its corner.
    """
    right, bottom = width - edge, height - edge
    rows = {
        0: [[1, 0, 0], [0, 1, 0]],
        1: [[0, -1, right], [1, 0, 0]],
        2: [[-1, 0, right], [0, -1, bottom]],
        3: [[0, 1, 0], [-1, 0, bottom]],
    }[turn % 4]
    return np.array([*rows, [0, 0, 1]], np.float64)


# -- frames ----------------------------------------------------------------------------------------------------------


def key(path: Path, number: int) -> str:
    """How an alignments file names frame `number`, from 1, of a video."""
    return f"{path.stem}_{number:06d}{path.suffix}"


def within(frames: tuple[int, int], around: range, name: str) -> range:
    """A first and a last frame as a range in another. MediaError where they go beyond it."""
    if frames[0] not in around or frames[1] not in around:
        raise MediaError(
            f"Frames {frames[0]}-{frames[1]} are not within {name}, which has {around[0]}-{around[-1]}: "
            "give frames that are (faceswap_run_frames)."
        )
    return range(frames[0], frames[1] + 1)


def cut(path: Path, numbers: Collection[int], folder: Path) -> None:
    """Put the frames of these numbers into a new folder, upright and with exactly the pixels that an engine decodes.

    Frames of a video become PNG files named as their faces will be; images are linked to under their own names.
    """
    folder.mkdir(parents=True)
    if path.is_dir():
        files = image_files(path)
        for number in numbers:
            (folder / files[number - 1].name).symlink_to(files[number - 1].absolute())
        return
    last = max(numbers)
    turn = 0
    with _open(path) as container:
        for number, frame in enumerate(_decode(container, _picture(container, path), path), 1):
            if number == 1:
                turn = _turn_of(frame)
            if number in numbers:
                picture = np.asarray(frame.to_ndarray(channel_last=True, format="bgr24"), np.uint8)[..., ::-1]
                image = Image.fromarray(upright(picture, turn))
                image.save(folder / f"{path.stem}_{number:06d}.png", compress_level=1)  # they live for minutes
            if number == last:
                return
    raise MediaError(f"{path} has no frame {last}: name frames that it has.")
