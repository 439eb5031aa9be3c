"""Frames in, images out: a video or a folder of images is read alike, and every file is written whole."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import av
import numpy as np
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from minifaceswap.align import Image8
from minifaceswap.errors import UserError

IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a file beside `path` and then put it in place at once, safe from a kill or a power cut."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)  # on a full disk it would take the room that others need
        raise


def write_png(path: Path, image: Image8, text: dict[str, str] | None = None) -> None:
    """Write an RGB image (height, width, 3) as PNG, with text chunks."""
    info = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        info.add_itxt(key, value)
    # compress_level 3: twice as fast as the default for a file a few per cent larger
    write_whole(path, lambda file: Image.fromarray(image).save(file, "png", pnginfo=info, compress_level=3))


def read_image(path: Path) -> tuple[Image8, dict[str, str]]:
    """RGB pixels (height, width, 3) of an image file, turned upright, and its text chunks."""
    try:
        with Image.open(path) as image:
            pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
            return pixels, dict(getattr(image, "text", {}))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} cannot be read as an image ({error}): replace or remove it.") from error


def image_files(folder: Path) -> list[Path]:
    """The images of a folder by name; hidden files, such as half-written ones, are passed over."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))


class Source:
    """The frames of a video file or of a folder of images.

    Raises UserError where there is nothing to read or it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise UserError(f"{path} does not exist: give a video file or a folder of images.")
        self._images = image_files(path) if path.is_dir() else []
        if path.is_dir() and not self._images:
            raise UserError(f"{path} holds no images: give a video file or a folder of images.")

    def count(self) -> int | None:
        """How many frames there are, or None where the video does not say."""
        if self._images:
            return len(self._images)
        with self._open() as container:
            return container.streams.video[0].frames or None

    def key(self, number: int) -> str:
        """The name of frame `number`, from 1, in an alignments file."""
        if self._images:
            return self._images[number - 1].name
        return f"{self.path.stem}_{number:06d}{self.path.suffix}"

    def owns(self, key: str) -> bool:
        """Whether a name in an alignments file may be of one of these frames."""
        if self._images:
            return any(path.name == key for path in self._images)
        return re.fullmatch(rf"{re.escape(self.path.stem)}_\d+{re.escape(self.path.suffix)}", key) is not None

    def __iter__(self) -> Iterator[tuple[int, Image8]]:
        """Number, from 1, and RGB pixels (height, width, 3) of each frame."""
        if self._images:
            for number, path in enumerate(self._images, 1):
                yield number, read_image(path)[0]
            return
        with self._open() as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            number = 0
            try:
                for number, frame in enumerate(container.decode(stream), 1):
                    # By way of BGR as Faceswap reads it: of deeper colours swscale makes others on its way to RGB.
                    pixels = np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
                    yield number, np.ascontiguousarray(pixels[..., ::-1])
            except av.FFmpegError as error:
                raise self._broken(f"after frame {number}: {error.strerror}") from error
            if not number:
                raise self._broken("no frame can be decoded")

    def _open(self) -> av.container.InputContainer:
        try:
            container = av.open(str(self.path))
        except (av.FFmpegError, OSError) as error:
            raise self._broken(error.strerror) from error
        if not container.streams.video:
            container.close()
            raise self._broken("it has no video stream")
        entries = container.streams.video[0].index_entries
        size = self.path.stat().st_size
        if any(entry.pos + entry.size > size for entry in entries):
            container.close()
            raise self._broken("it ends before its last frame")
        return container

    def _broken(self, why: str | None) -> UserError:
        return UserError(f"{self.path} is not a video that can be read ({why}): give a whole video file.")
