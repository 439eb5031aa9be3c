"""The reference picture of a consent record: a still of its source, or a picture of one's own, as PNG."""

import io
from pathlib import Path

import av
from PIL import Image, ImageOps

from faceswap_oci.play import UsageError

_LONGEST = 1600  # pixels of the longer side: more than a face needs, and it travels to each host
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def of_source(source: Path, second: float | None) -> bytes:
    """The frame of a video at `second`, else in its middle; of images in a folder the middle one.

    Raises UsageError.
    """
    if source.is_dir():
        images = sorted(path for path in source.rglob("*") if path.suffix.lower() in _SUFFIXES)
        if not images:
            raise UsageError(f"{source} holds no image: give a video, or a folder of images.")
        return of_file(images[len(images) // 2])
    try:
        with av.open(str(source)) as video:
            if not video.streams.video:
                raise UsageError(f"{source} holds no picture: give a video, or a folder of images.")
            length = (video.duration or 0) / av.time_base
            wanted = length / 2 if second is None else second
            video.seek(round(wanted * av.time_base))
            frame = None
            for found in video.decode(video=0):
                if second is None or found.time is None or found.time >= wanted - 0.001:
                    frame = found  # without a wish whatever comes first: lengths are not always right
                if found.time is None or found.time >= wanted - 0.001:
                    break
    except (OSError, av.error.FFmpegError) as error:
        raise UsageError(
            f"{source} cannot be read as a video ({error.strerror or error}): play it in a player first."
        ) from error
    if frame is None:
        raise UsageError(f"{source} has no frame at second {wanted:g}: it is {length:.1f} s long.")
    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    return _png(image.rotate(frame.rotation, expand=True) if frame.rotation else image)


def of_file(path: Path) -> bytes:
    """A picture as PNG, upright and without what the camera wrote into it (such as a place). Raises UsageError."""
    try:
        with Image.open(path) as image:
            return _png(ImageOps.exif_transpose(image))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"{path} cannot be read as a picture ({error}): give a PNG or JPEG.") from error


def _png(image: Image.Image) -> bytes:
    plain = image.convert("RGB")
    plain.info.clear()
    plain.thumbnail((_LONGEST, _LONGEST))
    stream = io.BytesIO()
    plain.save(stream, "PNG")
    return stream.getvalue()
