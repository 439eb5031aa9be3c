"""Alignments files and face images of both engines: reading, renaming, turning.

Faceswap's `.fsa` is a pickle compressed with zlib, `{"__meta__": {"version": v}, "__data__": {key: entry}}`, of plain
values only; its faces are PNG files that repeat their entry in a text chunk. The built-in engine's are JSON.
"""

import ast
import io
import json
import os
import pickle
import struct
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Json = dict[str, Any]
Points = NDArray[np.float64]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PADDING = b"\0\0\0\0\0"  # between keyword and text: not compressed, no language, no translation


class AlignmentsError(Exception):
    """One sentence that names the cause and the remedy."""


@dataclass(frozen=True)
class Turn:
    """How what was found in upright frames lies in the stored ones.

    `matrix` (3, 3) leads from the upright frame to the stored one; `swaps`: width and height change places.
    """

    matrix: Points
    swaps: bool

    def points(self, points: Any) -> list[list[float]]:
        """Points (n, 2)."""
        moved = np.asarray(points, np.float64) @ self.matrix[:2, :2].T + self.matrix[:2, 2]
        return [[float(x), float(y)] for x, y in moved]

    def box(self, left: float, top: float, right: float, bottom: float) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of a box."""
        corners = np.array(self.points([[left, top], [right, bottom]]))
        low, high = corners.min(0), corners.max(0)
        return round(low[0]), round(low[1]), round(high[0]), round(high[1])

    def onto(self, matrix: Any) -> list[list[float]]:
        """A matrix (2 or 3, 3) that leads from the frame to somewhere else."""
        return [[float(v) for v in row] for row in np.asarray(matrix, np.float64) @ np.linalg.inv(self.matrix)]


class _Plain(pickle.Unpickler):
    """Builds plain values and nothing else: a pickle could otherwise run any program."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is no plain value")


def load(path: Path) -> tuple[Json, Json]:
    """An alignments file as (meta, frames by key). AlignmentsError where it is none."""
    try:
        data = path.read_bytes()
        if path.suffix == ".json":
            return {}, json.loads(data)
        content = _Plain(io.BytesIO(zlib.decompress(data))).load()
        return content["__meta__"], content["__data__"]
    except FileNotFoundError:
        raise AlignmentsError(f"{path} is missing: run the extract stage again.") from None
    except (OSError, ValueError, zlib.error, pickle.UnpicklingError, EOFError, KeyError, TypeError) as error:
        raise AlignmentsError(f"{path} is not an alignments file ({error}): run the extract stage again.") from None


def save(path: Path, meta: Json, frames: Json) -> None:
    """Replace an alignments file in one step."""
    if path.suffix == ".json":
        data = json.dumps(frames).encode()
    else:
        data = zlib.compress(pickle.dumps({"__meta__": meta, "__data__": frames}))
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def faces_of(entry: Any) -> list[Json]:
    """The faces in the entry of a frame."""
    faces: list[Json] = entry["faces"] if isinstance(entry, dict) else entry
    return faces


def drop(frames: Json, images: Collection[str]) -> None:
    """Leave the faces of these images, `<frame>_<number>.png`, out of frames, in place."""
    for key, entry in frames.items():
        faces = faces_of(entry)
        faces[:] = [face for number, face in enumerate(faces) if f"{Path(key).stem}_{number}.png" not in images]


def landmarks_of(face: Json) -> Points:
    """The landmarks (68, 2) of a face, in px of the frame as it is stored."""
    return np.asarray(face["landmarks_xy"] if "landmarks_xy" in face else face["landmarks_2d"], np.float64)


def turn_face(face: Json, turn: Turn) -> None:
    """Move a face of either engine from the upright frame to the stored one, in place."""
    if "landmarks_2d" in face:
        face["detected"] = list(turn.box(*face["detected"]))
        face["landmarks_2d"] = [[round(x, 2), round(y, 2)] for x, y in turn.points(face["landmarks_2d"])]
        return
    left, top, right, bottom = turn.box(face["x"], face["y"], face["x"] + face["w"], face["y"] + face["h"])
    face.update(x=left, y=top, w=right - left, h=bottom - top, landmarks_xy=turn.points(face["landmarks_xy"]))
    for mask in face["mask"].values():
        mask["affine_matrix"] = turn.onto(mask["affine_matrix"])  # from the frame to the mask


def rename_face(png: bytes, key: str, turn: Turn | None) -> bytes:
    """A face image as it would be, had it been extracted from frame `key` of a video. AlignmentsError for others."""

    def faceswap(text: str) -> str:
        content = ast.literal_eval(text)
        source = content["source"]
        source.update(source_filename=key, source_is_video=True)
        if turn:
            turn_face(content["alignments"], turn)
            if turn.swaps:
                source["source_frame_dims"] = tuple(reversed(source["source_frame_dims"]))
        return str(content)

    def minifaceswap(text: str) -> str:
        return json.dumps({**json.loads(text), "frame": key})

    return _with_text(png, {b"faceswap": faceswap, b"minifaceswap": minifaceswap})


def _with_text(png: bytes, rewrite: dict[bytes, Callable[[str], str]]) -> bytes:
    """A PNG file with one of its text chunks rewritten, all else as it was."""
    out, found = [SIGNATURE], False
    for kind, body in _chunks(png):
        keyword = body.split(b"\0", 1)[0]
        if kind == b"iTXt" and keyword in rewrite:
            text = body[len(keyword) + len(PADDING) :].decode("utf-8")
            body = keyword + PADDING + rewrite[keyword](text).encode("utf-8")
            found = True
        out += [struct.pack(">I", len(body)), kind, body, struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))]
    if not found:
        raise AlignmentsError("a face image has no alignments in it: run the extract stage again")
    return b"".join(out)


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each chunk of a PNG file."""
    if not png.startswith(SIGNATURE):
        raise AlignmentsError("a face image is no PNG file: run the extract stage again")
    place = len(SIGNATURE)
    while place < len(png):
        (length,) = struct.unpack_from(">I", png, place)
        yield png[place + 4 : place + 8], png[place + 8 : place + 8 + length]
        place += length + 12
