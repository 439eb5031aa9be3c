"""Tries an engine by its description: loads its modules, and multiplies two matrices on the device it would use.

    python try_engine.py engine.json

It is run by the engine's own Python, which has torch or JAX. The product is known without computing it on that
device. With a compute capability in the description there is a GPU, and an engine whose torch or JAX was built for it
must use it. One line of JSON says what was found; a failure is one sentence and exit code 1.
"""

import compileall
import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

SIZE = 512
LEFT, RIGHT = 7, 5  # the periods of the two matrices' entries


def matrices() -> tuple[list[list[float]], list[list[float]]]:
    """Return two matrices of small whole numbers, exact in the least exact format of a GPU."""
    left = [[float((row % LEFT + 3 * column) % 11) for column in range(SIZE)] for row in range(SIZE)]
    right = [[float((2 * row + column % RIGHT) % 7) for column in range(SIZE)] for row in range(SIZE)]
    return left, right


def known_product() -> list[list[float]]:
    """Return their product in whole numbers; rows and columns repeat, so there are few sums."""
    left, right = matrices()
    few = [[sum(left[i][k] * right[k][j] for k in range(SIZE)) for j in range(RIGHT)] for i in range(LEFT)]
    return [[few[i % LEFT][j % RIGHT] for j in range(SIZE)] for i in range(SIZE)]


def by_torch() -> tuple[dict[str, Any], list[list[float]]]:
    """Multiply with torch; return what it is, and the product."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    left, right = (torch.tensor(entries, device=device) for entries in matrices())
    found = {
        "library": "torch",
        "version": torch.__version__,
        "for_gpu": torch.version.cuda is not None,
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
        "on_gpu": device == "cuda",
    }
    return found, (left @ right).cpu().tolist()


def by_jax() -> tuple[dict[str, Any], list[list[float]]]:
    """Multiply with JAX; return what it is, and the product."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # it would take most of the GPU's memory
    import jax

    [device] = jax.numpy.zeros(1).devices()
    left, right = (jax.numpy.asarray(entries) for entries in matrices())
    found = {
        "library": "JAX",
        "version": jax.__version__,
        "for_gpu": any(importlib.util.find_spec(f"jax_cuda{major}_plugin") for major in (12, 13)),
        "device": device.device_kind,
        "on_gpu": device.platform == "gpu",
    }
    return found, (left @ right).tolist()


def attempt(description: dict[str, Any]) -> dict[str, Any]:
    """Return what the engine computes with and where; raise SystemExit with a sentence where it does not work."""
    folder = str(Path(description["command"][-1]).parent)
    sys.path.insert(0, folder)
    compileall.compile_dir(folder, quiet=2)  # whoever runs the engine may not write here
    for module in description["modules"]:
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever a module does while it loads
            raise SystemExit(
                f"Its module {module} does not load ({error}): its source or its packages are not whole."
            ) from None
    if importlib.util.find_spec("torch"):
        found, product = by_torch()
    elif importlib.util.find_spec("jax"):
        found, product = by_jax()
    else:
        raise SystemExit("The engine has neither torch nor JAX: its lock file is not an engine's.")
    if product != known_product():
        raise SystemExit(
            f"The product of two matrices is wrong on {found['device']} ({found['library']} {found['version']}): "
            "reboot the host and try again, or the device is broken."
        )
    if description["compute_capability"] and found["for_gpu"] and not found["on_gpu"]:
        raise SystemExit(
            f"{found['library']} {found['version']} was built for a GPU and there is one (compute capability "
            f"{description['compute_capability']}), but it computes on the CPU: see that nvidia-smi works there."
        )
    return found


if __name__ == "__main__":
    os.umask(0o022)
    print(json.dumps(attempt(json.loads(Path(sys.argv[1]).read_text()))))
