"""Tells whether the model in a folder can be loaded: exit code 0, or 65 and one sentence if it cannot.

    python check_model.py MODEL_DIR

It is run by the engine's own Python, and knows the files of both engines: Faceswap's `<trainer>.keras` (a zip with
the weights in HDF5), the built-in engine's `<trainer>.npz`, and beside either of them `<trainer>_state.json`.

Any other exit code is no verdict on the model: the program itself could not go on, for want of memory or of a module,
or because a file may not be read.
"""

import io
import json
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

CANNOT_BE_LOADED = 65  # EX_DATAERR; 1 is also how Python ends by an exception


class Damaged(Exception):  # noqa: N818  it is a verdict, not a program's error
    """What is wrong with the model."""


def check_numbers(name: str, values: Any) -> None:
    """Raise Damaged where an array of numbers has one that is none."""
    import numpy as np

    if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
        raise Damaged(f"its weights {name} have numbers that are not finite")


def check_keras(path: Path) -> None:
    """Read all of a keras file."""
    import h5py

    with zipfile.ZipFile(path) as pack:
        names = pack.namelist()
        for needed in ("config.json", "model.weights.h5"):
            if needed not in names:
                raise Damaged(f"it has no {needed}")
        # Reading a member to its end compares its CRC.
        contents = {name: pack.read(name) for name in names if not name.endswith("/")}
    json.loads(contents["config.json"])
    arrays = []

    def look(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            arrays.append(name)
            check_numbers(name, item[()])

    try:
        with h5py.File(io.BytesIO(contents["model.weights.h5"]), "r") as weights:
            weights.visititems(look)
    except OSError as error:  # of the content: the file was read before
        raise Damaged(str(error)) from None
    if not arrays:
        raise Damaged("it holds no weights")


def check_npz(path: Path) -> None:
    """Read all of the built-in engine's checkpoint."""
    import numpy as np

    with np.load(path, allow_pickle=False) as arrays:
        names = list(arrays)
        for name in names:
            check_numbers(name, arrays[name])
    if ".iteration" not in names:
        raise Damaged("it does not tell its iteration")


def check_state(path: Path) -> None:
    """Read what the engine keeps beside the weights."""
    if not path.is_file():
        raise Damaged("there is no such file")
    state = json.loads(path.read_text(encoding="utf-8"))
    iterations = state.get("iterations") if isinstance(state, dict) else None
    if not isinstance(iterations, int) or iterations < 0:
        raise Damaged("it does not tell its iterations")
    if state.get("name", path.name.removesuffix("_state.json")) != path.name.removesuffix("_state.json"):
        raise Damaged(f"it is that of the model {state['name']}")


def check(folder: Path) -> str | None:
    """Return a sentence where the model in a folder cannot be loaded, None where it can.

    SystemExit with a sentence where that cannot be told, as a file may not be read.
    """
    models = sorted(path for path in folder.glob("*") if path.suffix in (".keras", ".npz"))
    if not models:
        return f"There is no model in {folder}: train one first, or put one back from a checkpoint."
    for model in models:
        reader = check_keras if model.suffix == ".keras" else check_npz
        path = model
        try:
            reader(model)
            path = folder / f"{model.stem}_state.json"
            check_state(path)
        except (
            Damaged,
            FileNotFoundError,
            ValueError,
            KeyError,
            EOFError,
            RuntimeError,
            zipfile.BadZipFile,
            zlib.error,
            struct.error,
        ) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            return f"{path} cannot be loaded ({reason}): put the model back from a checkpoint, or train it anew."
        except OSError as error:
            raise SystemExit(f"{path} cannot be read ({error.strerror}): mend that, and try again.") from None
    return None


if __name__ == "__main__":
    verdict = check(Path(sys.argv[1]))
    if verdict:
        print(verdict, file=sys.stderr)
        sys.exit(CANNOT_BE_LOADED)
