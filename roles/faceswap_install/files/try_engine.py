"""Tries an engine by its description: loads its modules, computes on the device it would use, and asks for its help.

    python try_engine.py engine.json

It is run by the engine's own Python, which has torch or JAX. A product of two matrices is known without computing it
on that device; a small keras model must give there what NumPy gives. With a compute capability in the description
there is a GPU, and an engine that was built for it must use it. Faceswap makes its files of settings meanwhile, and
everything is compiled to byte code, as whoever runs the engine may not write there. One line of JSON says what was
found; a failure is one sentence and exit code 1.
"""

import compileall
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SIZE = 512
LEFT, RIGHT = 7, 5  # the periods of the two matrices' entries
HELP_TIMEOUT_S = 300


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


def by_keras(on_gpu: bool) -> dict[str, Any]:
    """Run a small model forward, on the device that torch uses; return what keras is."""
    import keras
    import numpy as np

    image = np.arange(8 * 8 * 3, dtype="float32").reshape(1, 8, 8, 3) / 100
    layer = keras.layers.Conv2D(4, 3, padding="valid", kernel_initializer="ones", activation="relu")
    given = keras.Input((8, 8, 3))
    model = keras.Model(given, layer(given))
    answer = model(image)
    if (keras.backend.backend() == "torch") and answer.is_cuda != on_gpu:
        raise SystemExit(f"keras {keras.__version__} computes on {answer.device}, which is not torch's own choice.")
    windows = np.lib.stride_tricks.sliding_window_view(image[0], (3, 3), axis=(0, 1)).sum(axis=(2, 3, 4))
    wanted = np.repeat(windows[None, :, :, None], 4, axis=3)
    if not np.allclose(keras.ops.convert_to_numpy(answer), wanted, rtol=1e-2):
        raise SystemExit(
            f"A keras model gives a wrong answer (keras {keras.__version__}): reboot the host and try again, or its "
            "device is broken."
        )
    return {"keras": keras.__version__}


@contextmanager
def computing(library: str, description: dict[str, Any]) -> Iterator[None]:
    """Make one sentence of what a library says of a device on which it cannot compute."""
    try:
        yield
    except RuntimeError as error:  # torch's, CUDA's and XLA's are such
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        build = f" (torch's build {name})" if (name := description.get("torch_build")) else ""
        raise SystemExit(
            f"{library} does not compute{build}: {said.rstrip('.')}; see that nothing else uses the device and that "
            "its driver is new enough (nvidia-smi), or choose another faceswap_install_target."
        ) from None


def start(command: list[str]) -> None:
    """Have the engine's own command line tell its options."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "FACESWAP_OCI_STAGE_DIR": folder}
        try:
            done = subprocess.run(
                [*command, "extract", "--help"],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=HELP_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            raise SystemExit(f"Its command line does not answer within {HELP_TIMEOUT_S} s.") from None
    if done.returncode or "--input-dir" not in done.stdout:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise SystemExit(f"Its command line does not start: {(said or ['it said nothing'])[-1].strip()}")


def compile_all(description: dict[str, Any]) -> None:
    """Compile the programs of the engine and of its detector; pip has compiled the packages."""
    for word in [*description["command"][1:], *description["detector"][1:]]:
        folder = Path(word) if Path(word).is_dir() else Path(word).parent
        if (folder / "faceswap.py").is_file():
            compileall.compile_dir(folder, quiet=2)


def attempt(description: dict[str, Any]) -> dict[str, Any]:
    """Return what the engine computes with and where; raise SystemExit with a sentence where it does not work."""
    os.environ.update(description["environment"])
    upstream = description["name"] == "faceswap"
    compile_all(description)
    if not upstream:
        sys.path.insert(0, str(Path(description["command"][-1]).parent))
    for module in description["modules"]:
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever a module does while it loads
            raise SystemExit(
                f"Its module {module} does not load ({error}): its source or its packages are not whole."
            ) from None
    if importlib.util.find_spec("torch"):
        library, multiply = "torch", by_torch
    elif importlib.util.find_spec("jax"):
        library, multiply = "JAX", by_jax
    else:
        raise SystemExit("The engine has neither torch nor JAX: its lock file is not an engine's.")
    with computing(library, description):
        found, product = multiply()
    if product != known_product():
        raise SystemExit(
            f"The product of two matrices is wrong on {found['device']} ({found['library']} {found['version']}): "
            "reboot the host and try again, or the device is broken."
        )
    if description["backend"] == "nvidia" and not found["on_gpu"]:
        there = f" (compute capability {capability})" if (capability := description["compute_capability"]) else ""
        raise SystemExit(
            f"{found['library']} {found['version']} is to compute on the GPU{there}, but it computes on the CPU: see "
            "that nvidia-smi works there, and that the driver is new enough."
        )
    if upstream:
        with computing("keras", description):
            found |= by_keras(found["on_gpu"])
        # An older commit's files of settings would be rewritten at every start, by users who may not.
        for settings in Path(description["command"][-1]).glob("config/*.ini"):
            settings.unlink()
        start(description["command"])
    return found


if __name__ == "__main__":
    os.umask(0o022)
    print(json.dumps(attempt(json.loads(Path(sys.argv[1]).read_text()))))
