"""Measure whether frames show a real swap, with networks that the engine does not use (dlib's).

Identity: dlib's face embedding, public domain by its author's word. Landmarks: dlib's 5-point predictor, public
domain too (the 68-point one is not free for every use and is not needed). Both are test dependencies only.

    python tests/swap_judge.py --a clipA --b clipB --frames DIR --alignments FILE

prints `name value limit ok|short` for each figure and exits with 1 when one is short.
"""

import argparse
import importlib.util
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import av
import dlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

SAMPLES = 25  # frames, evenly over the clip
# How far beyond the hull of the alignments' landmarks the engine may paint, as shares of the hull's height:
# upwards, because the mask 'extended' goes to the forehead, and all round for rounding.
FOREHEAD, MARGIN = 0.3, 0.05

Image8 = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """The figures of one judgement; a share is of the sampled frames."""

    source_nearer_a: float  # share of the unswapped frames nearer to A's centroid than to B's
    swapped_nearer_b: float  # share of the swapped frames nearer to B's centroid than to A's
    face_found: float  # share of the swapped frames with a face
    outside_difference: int | None  # largest change of a channel, of 255, where nothing may change; None: not asked
    landmark_error: float  # mean distance of dlib's 5 points from the source frame's, in eye distances

    def lines(self) -> list[tuple[str, float, str, bool]]:
        """Name, value, limit and whether it is reached, for each figure."""
        return [
            (field.name, value, f"{sign}{limit:g}", value >= limit if sign == ">=" else value <= limit)
            for field in fields(self)
            for value, (sign, limit) in [(getattr(self, field.name), LIMITS[field.name])]
            if value is not None
        ]

    @property
    def passed(self) -> bool:
        """Whether all limits are reached."""
        return all(ok for *_, ok in self.lines())


LIMITS = {
    "source_nearer_a": (">=", 1.0),
    "swapped_nearer_b": (">=", 0.9),
    "face_found": (">=", 1.0),
    "outside_difference": ("<=", 1),
    "landmark_error": ("<=", 0.08),
}


@cache
def _networks() -> tuple[Any, Any, Any]:
    """dlib's frontal face detector, 5-point predictor and embedding network."""
    package = importlib.util.find_spec("face_recognition_models")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("face_recognition_models: pip install --no-deps face-recognition-models==0.3.0")
    models = Path(package.origin).parent / "models"
    return (
        dlib.get_frontal_face_detector(),
        dlib.shape_predictor(str(models / "shape_predictor_5_face_landmarks.dat")),
        dlib.face_recognition_model_v1(str(models / "dlib_face_recognition_resnet_model_v1.dat")),
    )


@dataclass(frozen=True)
class Seen:
    """What dlib sees in a frame: the embedding (128,) and the 5 points (5, 2) in pixels."""

    embedding: Points
    points: Points


def look(frame: Image8) -> Seen | None:
    """dlib's view of the largest face of an RGB frame, or None without a face.

    The detector sees the frame once enlarged where it finds nothing at first: HOG needs faces of 80 pixels.
    """
    detector, predictor, embedder = _networks()
    boxes = detector(frame, 0) or detector(frame, 1)
    if not boxes:
        return None
    shape = predictor(frame, max(boxes, key=lambda box: box.area()))
    points = np.array([(point.x, point.y) for point in shape.parts()], np.float64)
    return Seen(np.array(embedder.compute_face_descriptor(frame, shape)), points)


def read_video(path: Path) -> list[Image8]:
    """All frames of a video, RGB."""
    with av.open(str(path)) as container:
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in container.decode(video=0)]


def read_frames(folder: Path) -> list[Image8]:
    """All PNG of a folder by name, RGB."""
    return [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))]


def read_landmarks(alignments: Path) -> list[Points | None]:
    """The landmarks (68, 2) of each frame's first face, by the frames' names; None without a face."""
    content = json.loads(alignments.read_text("utf-8"))
    return [np.array(content[key][0]["landmarks_2d"]) if content[key] else None for key in sorted(content)]


def untouched(landmarks: Points, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Where nothing may change in a frame of size (width, height): all but a generous hull of the landmarks.

    Made without the engine's code: the 68 points and copies of the brows moved up by FOREHEAD; their hull is
    the union of the triangles that their middle makes with any two of them; then it is widened by MARGIN.
    """
    up = landmarks[27] - landmarks[8]  # from the chin to the root of the nose: the face's own 'up'
    points = np.concatenate([landmarks, landmarks[17:27] + FOREHEAD * up])
    middle = tuple(points.mean(0))
    mask = Image.new("L", size)
    draw = ImageDraw.Draw(mask)
    for one, two in itertools.combinations(map(tuple, points), 2):
        draw.polygon([middle, one, two], fill=255)
    margin = max(1, round(MARGIN * float(np.linalg.norm(up))))
    outside: npt.NDArray[np.bool_] = np.asarray(mask.filter(ImageFilter.MaxFilter(2 * margin + 1))) == 0
    return outside


class Judge:
    """Knows clips A and B, RGB frames each, and gives verdicts on what was made of A's frames.

    Centroids are of SAMPLES frames of B, and of SAMPLES of A which lie between those that are judged.
    """

    def __init__(self, a: Sequence[Image8], b: Sequence[Image8]) -> None:
        chosen = np.linspace(0, len(a) - 1, 2 * SAMPLES).round().astype(int)
        self._a, self._sampled = a, chosen[::2]
        self._centroid_a = _centroid([a[i] for i in chosen[1::2]])
        self._centroid_b = _centroid([b[i] for i in np.linspace(0, len(b) - 1, SAMPLES).round().astype(int)])
        self._sources = [look(a[i]) for i in self._sampled]

    def verdict(self, swapped: Sequence[Image8], landmarks: Sequence[Points | None] | None) -> Verdict:
        """Judge one swapped frame for each of A's.

        With `landmarks` (68, 2) of A's frames the outside of the face is compared too; leave them out for a
        released video, which is encoded and carries a label.
        """
        if len(swapped) != len(self._a):
            raise ValueError(f"{len(swapped)} swapped frames for the {len(self._a)} frames of A")
        results = [look(swapped[i]) for i in self._sampled]
        errors = [
            np.linalg.norm(result.points - source.points, axis=1).mean() / _eye_distance(source.points)
            for source, result in zip(self._sources, results, strict=True)
            if source and result
        ]
        outside = None
        if landmarks is not None:
            outside = max(_outside_difference(self._a[i], swapped[i], landmarks[i]) for i in self._sampled)
        return Verdict(
            source_nearer_a=float(np.mean([seen is not None and not self._nearer_b(seen) for seen in self._sources])),
            swapped_nearer_b=float(np.mean([seen is not None and self._nearer_b(seen) for seen in results])),
            face_found=float(np.mean([seen is not None for seen in results])),
            outside_difference=outside,
            landmark_error=float(np.mean(errors)) if errors else float("inf"),
        )

    def _nearer_b(self, seen: Seen) -> bool:
        return _distance(seen.embedding, self._centroid_b) < _distance(seen.embedding, self._centroid_a)


def _distance(one: Points, other: Points) -> float:
    return float(np.linalg.norm(one - other))


def _centroid(frames: Sequence[Image8]) -> Points:
    centroid: Points = np.mean([seen.embedding for seen in map(look, frames) if seen], axis=0)
    return centroid


def _eye_distance(points: Points) -> float:
    """Between the middles of both eyes' corners, dlib's points 0, 1 and 2, 3."""
    return _distance(points[0:2].mean(0), points[2:4].mean(0))


def _outside_difference(source: Image8, result: Image8, landmarks: Points | None) -> int:
    height, width = source.shape[:2]
    outside = np.ones((height, width), bool) if landmarks is None else untouched(landmarks, (width, height))
    return int(np.abs(source.astype(int) - result)[outside].max(initial=0))


def main() -> int:
    """Judge from the command line."""
    parser = argparse.ArgumentParser(description="Judge a swap with networks that the engine does not use.")
    parser.add_argument("--a", type=Path, required=True, help="source clip A, whose head stays")
    parser.add_argument("--b", type=Path, required=True, help="clip B, whose face comes")
    swapped = parser.add_mutually_exclusive_group(required=True)
    swapped.add_argument("--frames", type=Path, help="folder of the converted frames, before release")
    swapped.add_argument(
        "--video", type=Path, help="released video, instead of --frames: the outside is not compared"
    )
    parser.add_argument("--alignments", type=Path, help="alignments file of A, needed with --frames")
    options = parser.parse_args()
    if options.frames and not options.alignments:
        parser.error("--frames needs --alignments")
    judge = Judge(read_video(options.a), read_video(options.b))
    if options.video:
        verdict = judge.verdict(read_video(options.video), None)
    else:
        verdict = judge.verdict(read_frames(options.frames), read_landmarks(options.alignments))
    for name, value, limit, ok in verdict.lines():
        print(f"{name} {value:g} {limit} {'ok' if ok else 'short'}")
    return 0 if verdict.passed else 1


if __name__ == "__main__":
    sys.exit(main())
