"""convert: paint B's face over A's in each frame, as images."""

import itertools
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from minifaceswap import alignments, checkpoint
from minifaceswap.align import FOREHEAD, FloatArray, Image8, aligned, apply, feather, hull_mask, inverse, warp
from minifaceswap.errors import UserError
from minifaceswap.media import Source, write_png
from minifaceswap.model import INPUT, OUTPUT, Params, decode, encode

log = logging.getLogger(__name__)

RIM = 0.04  # width of the soft rim of the mask, share of the face

Painter = Callable[[Image8, Image8], Image8]


@dataclass(frozen=True)
class Look:
    """How the new face is put in: a mask type of FOREHEAD, and 'avg-color' or 'none' for its colour."""

    mask_type: str
    colour: str


def swap(frame: Image8, landmarks: FloatArray, paint: Painter, look: Look) -> Image8:
    """The frame with the face at `landmarks` painted anew; outside the mask every pixel stays as it was."""
    matrix = aligned(landmarks, OUTPUT)
    face, points = warp(frame, matrix, (OUTPUT, OUTPUT)), apply(matrix, landmarks)
    mask = feather(hull_mask(points, OUTPUT, FOREHEAD[look.mask_type]), RIM * OUTPUT)
    painted = paint(face, hull_mask(points, OUTPUT, FOREHEAD["extended"]))
    if look.colour == "avg-color":
        # Scaled rather than shifted: light works so, and what is dark, pupils and lashes, stays dark.
        wanted, present = ((image * (mask[..., None] / 255)).sum((0, 1)) + 1 for image in (face, painted))
        painted = np.clip(painted * (wanted / present), 0, 255).round().astype(np.uint8)
    height, width = frame.shape[:2]
    back = inverse(matrix)
    over = warp(painted, back, (width, height)).astype(np.float64)
    alpha = warp(mask, back, (width, height), smooth=False)[..., None] / 255
    return (frame + alpha * (over - frame)).round().astype(np.uint8)


def convert(
    source_path: Path, output: Path, model: Path, alignments_path: Path, look: Look, ranges: Sequence[range]
) -> None:
    """Write the frames in `ranges` (all without any) as PNG; a frame without a face is written as it is."""
    source = Source(source_path)
    faces = alignments.load(alignments_path)
    trained = checkpoint.load(model)
    if trained is None:
        raise UserError(f"There is no trained model in {model}: run train first or name its folder with -m.")
    if not any(map(source.owns, faces)):  # with -N of extract some are left out, and stay as they are
        raise UserError(f"{alignments_path} has no frame of {source_path}: run extract on this input again.")
    paint = _painter(trained.state.mean)
    count = source.count()
    last = max((wanted[-1] for wanted in ranges), default=None)
    if last and count and last > count:
        raise UserError(f"The input has {count} frames, but a range goes to {last}: give ranges within it.")
    output.mkdir(parents=True, exist_ok=True)
    swapped = 0
    with tqdm(desc="Converting", total=len(set().union(*ranges)) or count, file=sys.stdout) as progress:
        for number, frame in itertools.islice(source, last):
            if ranges and not any(number in wanted for wanted in ranges):
                continue
            key = source.key(number)
            for face in faces.get(key, []):
                frame = swap(frame, face.landmarks, paint, look)
            write_png(output / f"{Path(key).stem}.png", frame)
            swapped += bool(faces.get(key))
            progress.update()
    log.info("Frames written: %d, with a face swapped: %d", progress.n, swapped)


def _painter(weights: Params) -> Painter:
    """Paint B's face (OUTPUT, OUTPUT, 3) as A's, which is given with its mask as fourth channel."""

    @jax.jit
    def run(face: jax.Array) -> jax.Array:
        step = OUTPUT // INPUT
        small = face.reshape(1, INPUT, step, INPUT, step, 4).mean((2, 4)) / 255
        code = encode(weights["encoder"], small[..., :3], small[..., 3:])
        return jnp.round(decode(weights["b"], code)[0] * 255).astype(jnp.uint8)

    return lambda face, mask: np.asarray(run(np.dstack([face, mask]).astype(np.float32)))
