"""A model on disk: one file with weights, optimiser, iteration and seed; the one before it as `.bk`.

Each file is replaced at once, so a kill at any moment leaves a checkpoint that loads. `<trainer>_state.json`
repeats the iteration for people and programs; where a kill came between the two files the checkpoint rules.
"""

import json
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from minifaceswap.errors import UserError
from minifaceswap.media import write_whole
from minifaceswap.model import Params, initial

TRAINER = "lightweight"  # the only one; named as Faceswap's nearest in size


@partial(jax.tree_util.register_dataclass, data_fields=["weights", "mean", "optimiser"], meta_fields=[])
@dataclass(frozen=True)
class State:
    """What training changes: weights, their running mean (with which convert paints), and Adam's moments."""

    weights: Params
    mean: Params
    optimiser: Any


@partial(jax.tree_util.register_dataclass, data_fields=["state", "iteration", "seed"], meta_fields=[])
@dataclass
class Checkpoint:
    """Everything from which training goes on exactly."""

    state: State
    iteration: int
    seed: int


def learning_rate(iteration: jax.Array) -> jax.Array:
    """Falls with the root of the iterations, so that no run needs to know how long training will be."""
    return 4e-3 / jnp.sqrt(1 + iteration / 500)


OPTIMISER = optax.adam(learning_rate)


def fresh(seed: int) -> Checkpoint:
    """A model that has learnt nothing yet."""
    weights = initial(seed)
    return Checkpoint(State(weights, jax.tree.map(jnp.copy, weights), OPTIMISER.init(weights)), 0, seed)


def path_in(folder: Path) -> Path:
    """The checkpoint file of a model folder."""
    return folder / f"{TRAINER}.npz"


def backup_in(folder: Path) -> Path:
    """The checkpoint before the last one."""
    return folder / f"{TRAINER}.npz.bk"


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint and the state; the one that stood there becomes `.bk`."""
    path = path_in(folder)
    arrays: dict[str, Any] = {
        jax.tree_util.keystr(key): np.asarray(value) for key, value in jax.tree_util.tree_leaves_with_path(checkpoint)
    }
    if path.exists():
        write_whole(backup_in(folder), lambda file: file.write(path.read_bytes()))
    write_whole(path, lambda file: np.savez(file, **arrays))
    save_state(folder, checkpoint)


def save_state(folder: Path, checkpoint: Checkpoint) -> None:
    """Write `<trainer>_state.json`."""
    state = {"engine": "minifaceswap", "iterations": checkpoint.iteration, "seed": checkpoint.seed}
    path = folder / f"{TRAINER}_state.json"
    write_whole(path, lambda file: file.write(json.dumps(state).encode()))


def load(folder: Path) -> Checkpoint | None:
    """The checkpoint of a folder, or None where none was saved there.

    Raises UserError where there is one that cannot be used; nothing is changed then.
    """
    path, backup = path_in(folder), backup_in(folder)
    if not path.exists() and not backup.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            checkpoint: Checkpoint = jax.tree_util.tree_map_with_path(
                lambda key, value: _like(arrays[jax.tree_util.keystr(key)], value), fresh(0)
            )
            return checkpoint
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        remedy = f"put the one before back with `mv '{backup}' '{path}'`, or give" if backup.exists() else "give"
        raise UserError(
            f"The checkpoint {path} cannot be read ({error}): {remedy} another model folder to begin anew."
        ) from error


def _like(array: np.ndarray, value: Any) -> Any:
    """The array as the type of `value`; their shapes must agree."""
    if array.shape != np.shape(value):
        raise ValueError(f"it holds {array.shape} where {np.shape(value)} belongs")
    return array.item() if isinstance(value, int) else jnp.asarray(array)
