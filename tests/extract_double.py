"""Stands in for Faceswap's `extract`, with its files and forms, and for the detector that feeds it.

    extract_double.py extract -i SOURCE -o FACES -p ALIGNMENTS.fsa [-N EVERY] [-A file]
    extract_double.py extract -i SOURCE -p LANDMARKS.json

The face of a frame is a red spot with a blue one above it: turned on its side it is none. What is found depends on
the pixels alone, so that a part and the whole agree only where both got the same ones. The environment may ask for
trouble: EXTRACT_FAILS_AT names a frame that is an error, EXTRACT_HANGS a host of weights that is not reached.
"""

import argparse
import json
import os
import pickle
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

FACE = 64  # px of a face image


def frames(source: Path) -> Iterator[tuple[str, Any]]:
    """Name and pixels (height, width, 3) of each frame."""
    if source.is_dir():
        for path in sorted(source.iterdir()):
            yield path.name, np.asarray(Image.open(path).convert("RGB"))
        return
    with av.open(str(source)) as container:
        for number, frame in enumerate(container.decode(video=0), 1):
            yield f"{source.stem}_{number:06d}{source.suffix}", frame.to_ndarray(format="bgr24")[..., ::-1]


def spot(picture: Any, channel: int) -> Any:
    """Middle (x, y) of what is red (0) or blue (2); None where nothing is."""
    others = [c for c in range(3) if c != channel]
    y, x = np.nonzero((picture[..., channel] > 150) & (picture[..., others].max(-1) < 100))
    return np.array([x.mean(), y.mean()]) if len(x) else None


def find(picture: Any) -> dict[str, Any] | None:
    """The face in a frame."""
    red, blue = spot(picture, 0), spot(picture, 2)
    if red is None or blue is None or blue[1] > red[1] - abs(blue[0] - red[0]):
        return None
    points = [[float(red[0] + n % 8), float(red[1] + n // 8)] for n in range(68)]
    left, top = red.astype(int).tolist()
    matrix = [[1.0, 0.0, float(10 - red[0])], [0.0, 1.0, float(20 - red[1])]]  # from the frame to the mask
    mask: dict[str, Any] = {"mask": zlib.compress(bytes(16)), "affine_matrix": matrix}
    mask |= {"interpolator": 1, "stored_size": 4, "stored_centering": "face"}
    box = {"x": left, "y": top, "w": 8, "h": 9}
    identity = {"t-face": [1.0, 0.0, float(left % 2) / 10]}
    return {**box, "landmarks_xy": points, "mask": {"custom": mask}, "identity": identity}


def save_face(folder: Path, name: str, picture: Any, face: dict[str, Any], video: bool) -> None:
    """A PNG of the pixels about the face, with its entry in a text chunk."""
    file = f"{Path(name).stem}_0.png"
    padded = np.pad(picture, ((FACE, FACE), (FACE, FACE), (0, 0)))
    top, left = face["y"] + FACE // 2, face["x"] + FACE // 2
    pixels = BytesIO()
    Image.fromarray(np.ascontiguousarray(padded[top : top + FACE, left : left + FACE])).save(pixels, "png")
    source = {"alignments_version": 2.4, "original_filename": file, "face_index": 0, "source_filename": name}
    source |= {"source_is_video": video, "source_frame_dims": picture.shape[:2]}
    text = b"faceswap\0\0\0\0\0" + str({"alignments": face, "source": source}).encode()
    chunk = struct.pack(">I", len(text)) + b"iTXt" + text + struct.pack(">I", zlib.crc32(b"iTXt" + text))
    place = pixels.getvalue().find(b"IDAT") - 4
    (folder / file).write_bytes(pixels.getvalue()[:place] + chunk + pixels.getvalue()[place:])


def as_json(face: dict[str, Any]) -> dict[str, Any]:
    """A face as Faceswap imports it."""
    box = [face["x"], face["y"], face["x"] + face["w"], face["y"] + face["h"]]
    return {"detected": box, "landmarks_2d": face["landmarks_xy"]}


def main() -> int:
    """Do what was asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["extract"])
    parser.add_argument("-i", type=Path, required=True)
    parser.add_argument("-o", type=Path)
    parser.add_argument("-p", type=Path, required=True)
    parser.add_argument("-N", type=int, default=1)
    parser.add_argument("-D")
    parser.add_argument("-A")
    options = parser.parse_args()
    if "EXTRACT_HANGS" in os.environ:
        print(
            "11/23/2026 06:30:48 ERROR    Failed to download model. Exiting. (Error: 'no route', URL: 'https://models/x')",
            flush=True,
        )
        time.sleep(3600)
    imported = json.loads(options.p.read_text()) if options.A == "file" else None
    if options.o:
        options.o.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict[str, Any]]] = {}
    count = sum(1 for _ in frames(options.i))
    for number, (name, picture) in enumerate(frames(options.i), 1):
        if os.environ.get("EXTRACT_FAILS_AT") and os.environ["EXTRACT_FAILS_AT"] in name:
            print(f"\n11/23/2026 06:30:48 ERROR    {name} is too much for me.", flush=True)
            return 3
        if (number - 1) % options.N == 0:
            face = find(picture)
            if imported is not None:
                assert [bool(face)] * len(imported[name]) == [True] * len(imported[name])
            found[name] = [face] if face else []
            if face and options.o:
                save_face(options.o, name, picture, face, not options.i.is_dir())
            print(f"\rExtracting faces: {number}/{count} [00:01<00:01, 9.00it/s]", end="", flush=True)
    print()
    if options.o is None:
        options.p.write_text(json.dumps({name: [as_json(face) for face in faces] for name, faces in found.items()}))
        return 0
    entries = {
        name: {"faces": [{**face, "thumb": [1, 2]} for face in faces], "video_meta": {}}
        for name, faces in found.items()
    }
    data = pickle.dumps({"__meta__": {"version": 2.4}, "__data__": entries})
    options.p.with_suffix(".fsa").write_bytes(zlib.compress(data))
    return 0


if __name__ == "__main__":
    sys.exit(main())
