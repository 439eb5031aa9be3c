"""The autoencoder: one encoder for both faces and one decoder for each, in JAX.

The encoder learns what a face does (pose, expression, light), a decoder how one person looks doing it: face
A put through A's encoder and B's decoder is B doing what A did.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

INPUT = 64  # pixels of the face that is looked at
OUTPUT = 128  # pixels of the face that is painted
CODE = 64  # channels of the 4 x 4 code between encoder and decoder
ENCODER = ((5, 1, 32), (3, 32, 64), (3, 64, 128), (3, 128, 128))  # kernel, channels in and out; each halves
DECODER = ((CODE, 128), (128, 64), (64, 32), (32, 16))  # channels in and out; each doubles the size

Params = Any  # nested dicts of arrays


def initial(seed: int) -> Params:
    """Random weights (He et al. 2015), the same for the same seed."""
    random = np.random.default_rng(seed)

    def layer(kernel: int, inputs: int, outputs: int) -> Params:
        spread = np.sqrt(2 / (kernel * kernel * inputs))
        weights = spread * random.standard_normal((kernel, kernel, inputs, outputs))
        return {
            "weights": jnp.asarray(weights, jnp.float32),
            "scale": jnp.ones(outputs),
            "bias": jnp.zeros(outputs),
        }

    def decoder() -> Params:
        return [layer(3, i, 4 * o) for i, o in DECODER] + [layer(3, DECODER[-1][1], 12)]

    encoder = [layer(*shape) for shape in ENCODER] + [layer(1, ENCODER[-1][2], CODE)]
    return {"encoder": encoder, "a": decoder(), "b": decoder()}


def encode(layers: Params, faces: jax.Array, masks: jax.Array) -> jax.Array:
    """Codes (n, 4, 4, CODE) of faces (n, INPUT, INPUT, 3) in 0..1 with their masks (n, INPUT, INPUT, 1).

    The encoder sees the brightness within the mask, brought to mean 0 and variance 1: skin, hair and background
    would tell it at once whose face it is, and a decoder then paints badly what it was never shown.
    """
    brightness = faces @ jnp.array([[0.299], [0.587], [0.114]])
    area = masks.sum((1, 2), keepdims=True) + 1
    centred = (brightness - (brightness * masks).sum((1, 2), keepdims=True) / area) * masks
    x = centred * lax.rsqrt((centred * centred).sum((1, 2), keepdims=True) / area + 1e-4)
    for layer in layers[:-1]:
        x = _activate(_normalise(_convolve(x, layer, stride=2), layer))
    return _convolve(x, layers[-1])


def decode(layers: Params, codes: jax.Array) -> jax.Array:
    """Faces (n, OUTPUT, OUTPUT, 3) in 0..1 of codes."""
    x = codes
    for layer in layers[:-1]:
        x = _shuffle(_activate(_normalise(_convolve(x, layer), layer)))
    faces: jax.Array = jax.nn.sigmoid(_shuffle(_convolve(x, layers[-1]) + layers[-1]["bias"]))
    return faces


def _convolve(x: jax.Array, layer: Params, stride: int = 1) -> jax.Array:
    return lax.conv_general_dilated(
        x, layer["weights"], (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _normalise(x: jax.Array, layer: Params) -> jax.Array:
    """Instance normalisation (Ulyanov et al. 2016): short trainings need it."""
    mean = x.mean((1, 2), keepdims=True)
    factor = lax.rsqrt((x * x).mean((1, 2), keepdims=True) - mean * mean + 1e-5) * layer["scale"]
    normal: jax.Array = x * factor + (layer["bias"] - mean * factor)
    return normal


def _activate(x: jax.Array) -> jax.Array:
    return jax.nn.leaky_relu(x, 0.1)


def _shuffle(x: jax.Array) -> jax.Array:
    """Pixel shuffle (Shi et al. 2016): (n, h, w, 4c) to (n, 2h, 2w, c)."""
    n, h, w, c = x.shape
    return x.reshape(n, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, c // 4)


def _window(x: jax.Array) -> jax.Array:
    """Means of 8 x 8 windows, 4 apart, put together from blocks of 4 x 4."""
    n, h, w, c = x.shape
    blocks = x.reshape(n, h // 4, 4, w // 4, 4, c).mean((2, 4))
    rows = blocks[:, 1:] + blocks[:, :-1]
    return (rows[:, :, 1:] + rows[:, :, :-1]) / 4


def _dissimilarity(x: jax.Array, y: jax.Array) -> jax.Array:
    """Mean (1 - SSIM) / 2 of images in 0..1 (Wang et al. 2004, their constants, box windows)."""
    mx, my = _window(x), _window(y)
    vx, vy, vxy = _window(x * x) - mx * mx, _window(y * y) - my * my, _window(x * y) - mx * my
    ssim = (2 * mx * my + 1e-4) * (2 * vxy + 9e-4) / ((mx * mx + my * my + 1e-4) * (vx + vy + 9e-4))
    return jnp.mean(1 - ssim) / 2


def mask_of(weights: jax.Array) -> jax.Array:
    """The face's mask in 0..1, of the loss's weights: 0 outside, 1 or more inside."""
    return jnp.minimum(weights, 1)


def face_loss(painted: jax.Array, target: jax.Array, weight: jax.Array) -> jax.Array:
    """Weighted L1 plus structural dissimilarity, both over the face's mask only."""
    mask = mask_of(weight)
    l1 = jnp.sum(jnp.abs(painted - target) * weight) / (3 * jnp.sum(weight))
    return l1 + 0.35 * _dissimilarity(painted * mask, target * mask)
