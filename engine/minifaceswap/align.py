"""Geometry: similarity alignment of a face, image warps, and masks from landmarks.

A matrix is (2, 3): it takes pixel coordinates (x, y) of one image to those of another, where the centre of
the first pixel is (0.5, 0.5) as in Pillow.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter
from scipy.spatial import ConvexHull

FloatArray = npt.NDArray[np.floating]
Image8 = npt.NDArray[np.uint8]

# Where five features lie in an aligned face of size 1 x 1: eye centres (image left, right), the nose's mean,
# mouth corners (left, right). Procrustes mean of the demo clips, made symmetric.
TEMPLATE = np.array([[0.332, 0.3365], [0.668, 0.3365], [0.5, 0.518], [0.3693, 0.7044], [0.6307, 0.7044]])

# How far a type of mask raises the brows, as a share of the aligned face.
FOREHEAD = {"components": 0.0, "extended": 0.12}
GROWTH = 1.04  # of the hull about its middle: the jaw's points lie a little inside the edge of a chin


def features(landmarks: FloatArray) -> FloatArray:
    """The five features (5, 2) that TEMPLATE names, from 68 landmarks (68, 2)."""
    parts = (slice(36, 42), slice(42, 48), slice(27, 36), slice(48, 49), slice(54, 55))
    return np.stack([landmarks[part].mean(0) for part in parts])


def similarity(source: FloatArray, target: FloatArray) -> FloatArray:
    """Matrix of the rotation, scale and shift that brings points (n, 2) nearest to others (Umeyama 1991).

    In the plane that is one complex number for rotation and scale, found by least squares.
    """
    a, b = ((p - p.mean(0)) @ [1, 1j] for p in (source, target))
    factor = np.vdot(a, b) / np.vdot(a, a).real
    rotation = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return np.column_stack([rotation, target.mean(0) - rotation @ source.mean(0)])


def apply(matrix: FloatArray, points: FloatArray) -> FloatArray:
    """Points (n, 2) moved by a matrix."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def inverse(matrix: FloatArray) -> FloatArray:
    """The matrix that undoes another."""
    rotation = np.linalg.inv(matrix[:, :2])
    return np.column_stack([rotation, -rotation @ matrix[:, 2]])


def aligned(landmarks: FloatArray, size: int, coverage: float = 1.0) -> FloatArray:
    """Matrix from an image to its aligned face of `size` pixels, which shows `coverage` faces across."""
    template = (TEMPLATE - 0.5) / coverage + 0.5
    return similarity(features(landmarks), template * size)


def warp(image: Image8, matrix: FloatArray, size: tuple[int, int], smooth: bool = True) -> Image8:
    """Image (height, width[, 3]) of uint8 moved by a matrix onto a canvas of size (width, height), zero outside.

    A strong reduction averages whole blocks first, so that fine detail does not alias. With `smooth` the
    filter is bicubic, which may overshoot; without it bilinear, which may not.
    """
    back = inverse(matrix)
    picture = Image.fromarray(image)
    blocks = int(np.sqrt(abs(np.linalg.det(back[:, :2]))))
    if blocks > 1:
        picture, back = picture.reduce(blocks), back / blocks
    filter_ = Image.Resampling.BICUBIC if smooth else Image.Resampling.BILINEAR
    return np.asarray(picture.transform(size, Image.Transform.AFFINE, tuple(back.ravel()), filter_))


def hull_mask(landmarks: FloatArray, size: int, forehead: float = 0.0) -> Image8:
    """Convex hull (size, size) of aligned landmarks (68, 2), grown a little; 255 inside.

    The brows are raised by `forehead` of the aligned face first, which is what makes a hull 'extended'.
    """
    points = landmarks.copy()
    points[17:27, 1] -= forehead * size
    points = points.mean(0) + GROWTH * (points - points.mean(0))
    corners = points[ConvexHull(points).vertices]
    mask = Image.new("L", (size, size))
    ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y in corners], fill=255)
    return np.asarray(mask)


def feather(mask: Image8, width: float) -> Image8:
    """The mask (size, size) with a soft rim of about `width` pixels, inwards only.

    A tall ellipse bounds it at the sides: where a turned face leaves the image the end is round, not straight.
    """
    line = (np.arange(len(mask)) + 0.5) / len(mask) * 2 - 1
    within = (line / 0.98) ** 2 + (line[:, None] / 1.24) ** 2 < 1
    within[[0, -1]] = False
    bounded = Image.fromarray(np.where(within, mask, 0).astype(np.uint8))
    blurred = np.asarray(bounded.filter(ImageFilter.GaussianBlur(width / 2)), np.float64)
    return np.clip(2 * blurred - 255, 0, 255).round().astype(np.uint8)
