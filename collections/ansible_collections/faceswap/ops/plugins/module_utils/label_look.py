# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Looks for the label in a video: before it is signed, and wherever it is met later.

`label` is the role's own `release/label.py`, which draws the label and tells whether a picture shows it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ansible_collections.faceswap.ops.plugins.module_utils.provenance import ProvenanceError

ALL_UNTIL = 1000  # frames; of a longer video only what lies around the sample is decoded
SAMPLE = 25  # frames looked at, beside the first and the last
BY_CHANCE = 50  # more frames of a long video that is to be signed: who knew which are looked at would label those

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
        looked, (seen,) = count(video, label, [style], as_drawn=True, whole=True, shows=fresh)
    except (av.error.FFmpegError, ValueError, IndexError) as error:
        return f"cannot be played to its end ({getattr(error, 'strerror', None) or error})"
    if seen < looked or not looked:
        return f"does not carry the label “{style.text}” on {looked - seen} of the {looked} frames looked at"
    return None


def sample(video: Path | Any, label: ModuleType, whole: bool = False) -> Iterator[Any]:
    """Pictures (RGB arrays) as a player shows them: the first, the last, and some in between, evenly spread.

    `video` is a path or an open file. `whole`: every frame; of a long video the sample, and some by chance.
    """
    import numpy as np

    def shown(frame: Any) -> Any:
        matrix = frame.side_data.get("DISPLAYMATRIX")
        turned = None if matrix is None else tuple(int(n) for n in np.frombuffer(matrix, np.int32))
        return np.ascontiguousarray(label.to_display(frame.to_ndarray(format="rgb24"), turned))

    with _opened(video) as container:
        stream = _pictures(container)
        if stream is None:
            return
        frames, begin = stream.frames, stream.start_time or 0
        ticks: Sequence[int] = range(begin, begin + (stream.duration or 0))
    if not frames or not ticks:
        frames, ticks = _counted(video)
    with _opened(video) as container:
        stream = _pictures(container)
        stream.thread_type = "AUTO"
        if frames > ALL_UNTIL and ticks:
            yield from map(shown, _at(container, stream, [ticks[n] for n in _wanted(len(ticks), whole)]))
        else:
            numbers = set(range(frames)) if whole else spread(frames)
            yield from map(shown, _numbered(container.decode(stream), numbers))


def _counted(video: Path | Any) -> tuple[int, Sequence[int]]:
    """How many pictures there are, and when each is shown (nothing where that is not told).

    For a container whose head does not say it, such as mkv's.
    """
    with _opened(video) as container:
        times = [packet.pts for packet in container.demux(_pictures(container)) if packet.size]
    return len(times), [] if None in times else sorted(times)


def _opened(video: Path | Any) -> Any:
    import av

    if isinstance(video, Path):
        return av.open(str(video))
    video.seek(0)
    return av.open(video)


def seconds(video: Path) -> float | None:
    """How long the pictures of a video last; None where its container does not say, or it is none."""
    import av
    import av.error

    try:
        with av.open(str(video)) as container:
            stream = _pictures(container)
            if stream is None:
                return None
            if stream.duration and stream.time_base:
                return float(stream.duration * stream.time_base)
            return container.duration / av.time_base if container.duration else None
    except (av.error.FFmpegError, OSError, ValueError):
        return None


def _pictures(container: Any) -> Any:
    """The stream of pictures that a player shows, and no cover."""
    from av.stream import Disposition

    streams = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
    return streams[0] if streams else None


def _numbered(frames: Iterable[Any], wanted: set[int]) -> Iterator[Any]:
    """The frames of these numbers, and the last, whatever its number turns out to be."""
    last: Any = None
    for number, frame in enumerate(frames):
        last = None if number in wanted else frame
        if number in wanted:
            yield frame
    if last is not None:
        yield last


def _at(container: Any, stream: Any, ticks: Iterable[int]) -> Iterator[Any]:
    """The frames that are shown at these times, in units of the stream's."""
    for tick in ticks:
        container.seek(tick, stream=stream)
        nearest: Any = None
        for nearest in container.decode(stream):
            if nearest.pts is None or nearest.pts >= tick:
                break
        if nearest is not None:
            yield nearest


def _wanted(count: int, whole: bool) -> list[int]:
    more = random.SystemRandom().sample(range(count), min(count, BY_CHANCE)) if whole else []
    return sorted(spread(count) | set(more))


def spread(count: int) -> set[int]:
    """The first, the last, and up to `SAMPLE` numbers between them, out of 0 to `count` - 1."""
    return {round((count - 1) * n / (SAMPLE + 1)) for n in range(SAMPLE + 2)} if count else set()
