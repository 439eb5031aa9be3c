"""The alignments file and the face images: what extract hands to train and convert."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minifaceswap.align import FloatArray, Image8
from minifaceswap.errors import UserError
from minifaceswap.media import image_files, read_image, write_png, write_whole

COVERAGE = 1.25  # a face image shows this many aligned faces across, so that training can shift and turn it
PNG_KEY = "minifaceswap"


@dataclass(frozen=True)
class Face:
    """A face of a frame: 68 landmarks (68, 2) in pixels of the frame."""

    landmarks: FloatArray

    def entry(self) -> dict[str, Any]:
        """The face as Faceswap's JSON import describes it."""
        left, top = self.landmarks.min(0)
        right, bottom = self.landmarks.max(0)
        return {
            "detected": [round(float(v)) for v in (left, top, right, bottom)],
            "landmarks_2d": [[round(float(x), 2), round(float(y), 2)] for x, y in self.landmarks],
        }


Alignments = dict[str, list[Face]]


def save(path: Path, alignments: Alignments) -> None:
    """Write an alignments file in the JSON form that Faceswap's own extract imports with `-A file`."""
    content = {key: [face.entry() for face in faces] for key, faces in alignments.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda file: file.write(json.dumps(content).encode()))


def load(path: Path) -> Alignments:
    """Read an alignments file. Raises UserError where it is missing or not of that form."""
    try:
        content = json.loads(path.read_text("utf-8"))
        return {key: [Face(_points(entry["landmarks_2d"])) for entry in faces] for key, faces in content.items()}
    except FileNotFoundError as error:
        raise UserError(
            f"The alignments file {path} does not exist: run extract first or name it with -p."
        ) from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is not an alignments file of 68-point faces: run extract again.") from error


def save_face(path: Path, image: Image8, landmarks: FloatArray, frame: str) -> None:
    """Write a face image with its landmarks, in its own pixels, and its frame's name in a text chunk."""
    points = [[round(float(x), 2), round(float(y), 2)] for x, y in landmarks]
    write_png(path, image, {PNG_KEY: json.dumps({"landmarks_2d": points, "frame": frame})})


def load_faces(folder: Path) -> Iterator[tuple[Image8, FloatArray]]:
    """Images and landmarks of the face images in a folder that extract filled, one by one."""
    if not folder.is_dir():
        raise UserError(f"The faces folder {folder} does not exist: run extract first.")
    yield from map(_load_face, image_files(folder))


def _load_face(path: Path) -> tuple[Image8, FloatArray]:
    image, text = read_image(path)
    try:
        return image, _points(json.loads(text[PNG_KEY])["landmarks_2d"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} was not made by this engine's extract: remove it or run extract again.") from error


def _points(values: Any) -> FloatArray:
    points = np.asarray(values, np.float64)
    if points.shape != (68, 2) or not np.ptp(points, axis=0).min() > 0:
        raise ValueError(f"expected 68 points with some extent, found an array of shape {points.shape}")
    return points
