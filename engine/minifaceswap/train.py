"""train: teach the autoencoder two persons' faces, from warped to unwarped ones."""

import logging
import signal
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import FrameType

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image, ImageDraw

from minifaceswap import checkpoint
from minifaceswap.align import FOREHEAD, FloatArray, Image8, hull_mask
from minifaceswap.alignments import COVERAGE, load_faces
from minifaceswap.errors import UserError
from minifaceswap.model import INPUT, OUTPUT, Params, decode, encode, face_loss, mask_of

log = logging.getLogger(__name__)

MIN_FACES = 25  # per side, as in Faceswap
STORED = round(OUTPUT * COVERAGE)  # pixels of a face in memory, at the scale of the painted one
UNIT = 80  # a weight of 1 in the fourth channel; eyes and mouth weigh 3
MEAN_RATE = 0.01  # of the running mean of the weights, which paints more calmly than the last ones
# Augmentation, standard deviations: turn in radians, scale, shift and warp as shares of the face.
TURN, SCALE, SHIFT, WARP = 0.02, 0.02, 0.01, 0.02


def stored(face: Image8, landmarks: FloatArray) -> Image8:
    """A face image as training keeps it: (STORED, STORED, 4) with the loss's weight as fourth channel."""
    points = landmarks * (STORED / face.shape[0])
    weight = Image.fromarray(hull_mask(points, STORED, FOREHEAD["extended"] / COVERAGE) // 255 * UNIT)
    for part in (slice(36, 42), slice(42, 48), slice(48, 60)):
        x, y = points[part].mean(0)
        radius = np.ptp(points[part, 0]) / 2 + 2
        box = (x - radius, y - 0.7 * radius, x + radius, y + 0.7 * radius)
        ImageDraw.Draw(weight).ellipse(box, fill=3 * UNIT)
    small = Image.fromarray(face).resize((STORED, STORED), Image.Resampling.BICUBIC)
    return np.dstack([np.asarray(small), np.asarray(weight)])


def colours_and_weights(faces: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Colours (n, h, w, 3) in 0..1 and weights (n, h, w, 1) of stored faces (n, h, w, 4)."""
    return faces[..., :3] / 255, faces[..., 3:] / UNIT


def sample(face: jax.Array, places: jax.Array) -> jax.Array:
    """Bilinear samples (h, w, c) of a face (s, s, c) at places (h, w, 2), where x and y are 0..1."""
    size, channels = face.shape[0], face.shape[2]
    at = jnp.clip(places * size - 0.5, 0, size - 1.001)
    corner = jnp.floor(at).astype(jnp.int32)
    fx, fy = jnp.split(at - corner, 2, axis=-1)
    pixels = face.reshape(-1, channels)
    index = corner[..., 1] * size + corner[..., 0]
    a, b, c, d = (pixels[index + step].astype(jnp.float32) for step in (0, 1, size, size + 1))
    return (a * (1 - fx) + b * fx) * (1 - fy) + (c * (1 - fx) + d * fx) * fy


def augmented(key: jax.Array, faces: jax.Array, batch: int) -> tuple[jax.Array, jax.Array]:
    """A batch drawn from faces (n, STORED, STORED, 4): warped inputs and unwarped targets, with four channels."""
    keys = jax.random.split(key, 6)
    chosen = faces[jax.random.randint(keys[0], (batch,), 0, faces.shape[0])]
    turn = TURN * jax.random.normal(keys[1], (batch, 1, 1))
    scale = (1 + SCALE * jax.random.normal(keys[2], (batch, 1, 1))) / COVERAGE
    shift = SHIFT * jax.random.normal(keys[3], (batch, 1, 1, 2))
    mirror = jnp.where(jax.random.bernoulli(keys[4], 0.5, (batch, 1, 1)), -1, 1)
    bends = WARP * jax.random.normal(keys[5], (batch, 5, 5, 2))

    def places(grid: jax.Array) -> jax.Array:
        x, y = grid[..., 0] * mirror, grid[..., 1]
        cos, sin = scale * jnp.cos(turn), scale * jnp.sin(turn)
        return jnp.stack([cos * x - sin * y, sin * x + cos * y], -1) + shift + 0.5

    def grid(size: int) -> jax.Array:
        line = (jnp.arange(size) + 0.5) / size - 0.5
        return jnp.stack(jnp.meshgrid(line, line), -1)[None]

    bent = grid(INPUT) + jax.image.resize(bends, (batch, INPUT, INPUT, 2), "cubic")
    return jax.vmap(sample)(chosen, places(bent)), jax.vmap(sample)(chosen, places(grid(OUTPUT)))


def losses(
    weights: Params, sides: Sequence[tuple[jax.Array, jax.Array]]
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Sum of both sides' losses, and each."""
    (inputs_a, targets_a), (inputs_b, targets_b) = sides
    inputs, weight = colours_and_weights(jnp.concatenate([inputs_a, inputs_b]))
    codes_a, codes_b = jnp.split(encode(weights["encoder"], inputs, mask_of(weight)), 2)
    a = face_loss(decode(weights["a"], codes_a), *colours_and_weights(targets_a))
    b = face_loss(decode(weights["b"], codes_b), *colours_and_weights(targets_b))
    return a + b, (a, b)


@partial(jax.jit, static_argnames="batch", donate_argnames="state")
def step(
    state: checkpoint.State, key: jax.Array, faces: Sequence[jax.Array], batch: int
) -> tuple[checkpoint.State, tuple[jax.Array, jax.Array]]:
    """One iteration with `batch` faces of each side: the new state and both losses."""
    sides = [augmented(k, side, batch) for k, side in zip(jax.random.split(key), faces, strict=True)]
    (_, each), gradients = jax.value_and_grad(losses, has_aux=True)(state.weights, sides)
    updates, optimiser = checkpoint.OPTIMISER.update(gradients, state.optimiser)
    weights = optax.apply_updates(state.weights, updates)
    mean = jax.tree.map(lambda old, new: old + MEAN_RATE * (new - old), state.mean, weights)
    return checkpoint.State(weights, mean, optimiser), each


def train(
    folders: tuple[Path, Path], model: Path, batch: int, iterations: int, save_interval: int, seed: int
) -> None:
    """Train `iterations` more from where the model stands; SIGINT ends it early with everything saved.

    The randomness of an iteration follows from the seed and the iteration's number alone, so a training in
    parts equals one in a single run.
    """
    now = checkpoint.load(model) or checkpoint.fresh(seed)
    faces = (_side("A", folders[0]), _side("B", folders[1]))
    model.mkdir(parents=True, exist_ok=True)
    if now.iteration:
        checkpoint.save_state(model, now)
        log.info("Resuming from iteration %d (seed %d)", now.iteration, now.seed)
    key = jax.random.key(now.seed)
    last = now.iteration + iterations
    saved = now.iteration
    interrupted = _Interrupt()
    while now.iteration < last and not interrupted:
        now.state, each = step(now.state, jax.random.fold_in(key, now.iteration), faces, batch)
        now.iteration += 1
        a, b = (float(loss) for loss in each)
        clock = time.strftime("%H:%M:%S")
        print(f"[{clock}] [#{now.iteration:05d}] Loss A: {a:.5f}, Loss B: {b:.5f}", end="\r", flush=True)
        if now.iteration - saved >= save_interval:
            _save(model, now)
            saved = now.iteration
    if saved < now.iteration:
        _save(model, now)
    if interrupted:
        log.info("Stopped on request at iteration %d: everything is saved", now.iteration)
    else:
        log.info("Training is done: %d iterations in all", now.iteration)


def _side(name: str, folder: Path) -> jax.Array:
    faces = [stored(*face) for face in load_faces(folder)]
    if len(faces) < MIN_FACES:
        raise UserError(
            f"Side {name} has {len(faces)} faces in {folder}, but training needs at least {MIN_FACES}: "
            "extract from a longer or clearer video."
        )
    log.info("Side %s: %d faces", name, len(faces))
    return jnp.asarray(np.stack(faces))


def _save(model: Path, now: checkpoint.Checkpoint) -> None:
    print()  # the progress line above stays as it is
    checkpoint.save(model, now)
    log.info("[Saved model] at iteration %d", now.iteration)


class _Interrupt:
    """True once SIGINT has come; a second SIGINT ends the program at once."""

    def __init__(self) -> None:
        self._came = False
        signal.signal(signal.SIGINT, self._handle)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self._came = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def __bool__(self) -> bool:
        return self._came
