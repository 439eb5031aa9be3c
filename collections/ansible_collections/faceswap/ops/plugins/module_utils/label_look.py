# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Looks for the label in a video: before it is signed, and wherever it is met later.

`label` is the role's own `release/label.py`, which draws the label and tells whether a picture shows it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

from ansible_collections.faceswap.ops.plugins.module_utils.provenance import ProvenanceError

ALL_UNTIL = 1000  # frames; of a longer video only what lies around the sample is decoded
# Frames looked at, beside the first and the last, and of a long one that is to be signed. Chance says which: who knew
# them would label those.
SAMPLE, SIGNED = 25, 75
CHANCE = random.SystemRandom()

# Of a score, as shares: what a video must have to be signed. The host's own look at each frame asks for a little more
# (`legible`), and a copy that was encoded anew has less (`present`).
MATCH, CONTRAST, LIGHT = 0.55, 0.8, 0.8


def library() -> Any:
    """PyAV; ProvenanceError where it or what the label is drawn with is missing. Loaded late, as few need it."""
    try:
        import av
        import numpy
        import PIL.Image
    except ImportError as error:
        raise ProvenanceError(
            f"{error.name or 'A library'} is missing, without which nobody sees whether a result carries its label: "
            "install it beside Ansible (pip install av numpy pillow; `make demo` does so)."
        ) from None
    return av, numpy, PIL


def fresh(score: Any) -> bool:
    """Whether a frame shows the label as it was released, neither faded nor a copy of a copy."""
    return bool(score.present and score.match >= MATCH and score.contrast >= CONTRAST and score.light >= LIGHT)


def present(score: Any) -> bool:
    """Whether a frame shows the label, be it in a copy."""
    return bool(score.present)


def count(
    video: Path | Any,
    label: ModuleType,
    styles: Sequence[Any],
    *,
    every: int = 1,
    as_drawn: bool = False,
    whole: bool = False,
    shows: Callable[[Any], bool] = present,
) -> tuple[int, list[int]]:
    """How many pictures of the sample were looked at, and how many of them show each of the labels.

    `every` so many of them are looked at. `whole` looks at every frame, and at more of a long video. `as_drawn` says
    that the video is no larger or smaller than it was. What cannot be played is an error of PyAV's, ValueError or
    IndexError.
    """
    looked, seen = 0, [0] * len(styles)
    for number, picture in enumerate(sample(video, label, whole)):
        if number % every:
            continue
        looked += 1
        size = picture.shape[1::-1] if as_drawn else None
        for n, style in enumerate(styles):
            seen[n] += shows(label.presence(picture, style, size))
    return looked, seen


def objection(video: Path | Any, label: ModuleType, told: Any) -> str | None:
    """Why a video does not carry the label that is told of, in words that follow its name; None where it does."""
    library()
    import av.error

    try:
        style = label.from_record(told)
    except label.LabelError:
        return "is said to carry no label that tells that AI made it"
    try:
        if found := unseen(video):
            return found
        looked, (seen,) = count(video, label, [style], as_drawn=True, whole=True, shows=fresh)
    except (av.error.FFmpegError, ValueError, IndexError) as error:
        return f"cannot be played to its end ({getattr(error, 'strerror', None) or error})"
    if seen < looked or not looked:
        return f"does not carry the label “{style.text}” on {looked - seen} of the {looked} frames looked at"
    return None


def unseen(video: Path | Any) -> str | None:
    """What a player may show of a video beside the pictures that are looked at; words as those of `objection`."""
    with _opened(video) as container:
        stream = _pictures(container)
        beside = [one.type for one in container.streams if one is not stream and one.type != "audio"]
    if beside:
        return f"has a stream ({beside[0]}) beside one of pictures and its sound, where nobody looks for the label"
    return None


def sample(video: Path | Any, label: ModuleType, whole: bool = False) -> Iterator[Any]:
    """Pictures (RGB arrays) as a player shows them: the first, the last, and one of each of so many equal parts.

    `video` is a path or an open file. `whole`: every frame; of a long video more parts.
    """
    stored, _ = _stored(video)
    times = sorted({begin for begin, _, _ in stored if begin is not None})
    wanted, found = sorted(spread(len(stored), SIGNED if whole else SAMPLE)), 0
    # Where a time is not told, or is told of two pictures, only counting finds a picture.
    if len(times) == len(stored) > ALL_UNTIL:
        decoded = {begin: at for begin, _, at in stored}
        with _opened(video) as container:
            stream = _pictures(container)
            stream.thread_type = "AUTO"
            for frame in _at(container, stream, [(times[n], decoded[times[n]]) for n in wanted]):
                yield _shown(frame, stream, label)
                found += 1
    if found < len(wanted):
        with _opened(video) as container:
            stream = _pictures(container)
            stream.thread_type = "AUTO"
            frames = container.decode(stream)
            for frame in frames if whole else _numbered(frames, set(wanted[found:])):
                yield _shown(frame, stream, label)


def _shown(frame: Any, stream: Any, label: ModuleType) -> Any:
    """A decoded picture as a player shows it: turned, and squeezed where its pixels are far from square."""
    import numpy as np
    from PIL import Image

    picture = frame.to_ndarray(format="rgb24")
    # Some players believe the container, others what is coded, which may change on the way.
    aspects = [float(one.sample_aspect_ratio or 1) for one in (stream, stream.codec_context)]
    aspect = max(aspects, key=lambda one: max(one, 1 / one))
    if not label.PIXEL_ASPECTS[0] <= aspect <= label.PIXEL_ASPECTS[1]:
        size = round(frame.width * min(1, aspect)), round(frame.height / max(1, aspect))
        picture = np.asarray(Image.fromarray(picture).resize([max(1, side) for side in size]))
    matrix = frame.side_data.get("DISPLAYMATRIX")
    turned = None if matrix is None else tuple(int(n) for n in np.frombuffer(matrix, np.int32))
    return np.ascontiguousarray(label.to_display(picture, turned))


def seconds(video: Path | Any) -> float | None:
    """How long the pictures of a video last; None where that is not told, or it is none."""
    import av.error

    try:
        stored, unit = _stored(video)
    except (av.error.FFmpegError, OSError, ValueError):
        return None
    told = [(begin, begin + length) for begin, length, _ in stored if begin is not None]
    return float((max(end for _, end in told) - min(told)[0]) * unit) if told else None


def _stored(video: Path | Any) -> tuple[list[tuple[int | None, int, int]], Any]:
    """When each stored picture is shown, for how long, and when it is decoded; and the unit of these in s.

    Nothing is decoded for it. What the container's head says of number and length is only somebody's word.
    """
    with _opened(video) as container:
        stream = _pictures(container)
        if stream is None:
            return [], None
        packets = (one for one in container.demux(stream) if one.size)
        return [(one.pts, one.duration or 0, one.dts or 0) for one in packets], stream.time_base


def _opened(video: Path | Any) -> Any:
    """The video, with what its edit list would have left out: not every player minds that list."""
    import av

    if not isinstance(video, Path):
        video.seek(0)
    return av.open(str(video) if isinstance(video, Path) else video, options={"ignore_editlist": "1"})


def _pictures(container: Any) -> Any:
    """The stream of pictures that a player shows, and no cover; None where there is none that can be decoded."""
    from av.stream import Disposition

    streams = (one for one in container.streams.video if not one.disposition & Disposition.attached_pic)
    return next((one for one in streams if one.codec_context), None)


def _numbered(frames: Iterable[Any], wanted: set[int]) -> Iterator[Any]:
    """The frames of these numbers, and the last, whatever its number turns out to be."""
    last: Any = None
    for number, frame in enumerate(frames):
        last = None if number in wanted else frame
        if number in wanted:
            yield frame
    if last is not None:
        yield last


def _at(container: Any, stream: Any, times: Iterable[tuple[int, int]]) -> Iterator[Any]:
    """The frames that are shown at these times, each with the one when it is decoded; up to one that is not found.

    Who calls every picture one that decoding may begin with has a later one found, which really is.
    """
    for shown, decoded in times:
        container.seek(decoded, stream=stream)
        frame = next((one for one in container.decode(stream) if one.pts is None or one.pts >= shown), None)
        if frame is None or frame.pts != shown:
            return
        yield frame


def spread(count: int, parts: int = SAMPLE) -> set[int]:
    """The first, the last, and one by chance out of each of so many equal parts between, of 0 to `count` - 1."""
    edges = [1 + (count - 2) * n // parts for n in range(parts + 1)]
    between = {CHANCE.randrange(a, b) for a, b in pairwise(edges) if a < b}
    return between | {0, count - 1} if count else set()
