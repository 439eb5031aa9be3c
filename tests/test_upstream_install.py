"""The real Faceswap, as faceswap_install leaves it (FACESWAP_SOURCE names where it comes from; see upstream.py)."""

import json
import os
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from upstream import install, needs_source, upstream_engine

__all__ = ["upstream_engine"]  # a fixture
pytestmark = [pytest.mark.upstream, needs_source]

ROOT = Path(__file__).parent.parent


@pytest.fixture
def engine(upstream_engine: Path) -> dict[str, Any]:
    described: dict[str, Any] = json.loads(upstream_engine.read_text())
    return described


def run(engine: dict[str, Any], command: list[str], folder: Path) -> str:
    """What a command of the engine says, in a job's folder, by somebody with nothing of his own."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "FACESWAP_OCI_STAGE_DIR": str(folder / "stage"),
    }
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment | engine["environment"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def written(folder: Path) -> set[tuple[str, int]]:
    return {(str(path), path.lstat().st_mtime_ns) for path in folder.rglob("*")}


def test_faces_are_extracted_without_weights_and_nothing_is_written_beside_the_job(
    upstream_engine: Path, engine: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "stage").mkdir()
    before = written(upstream_engine.parent)
    clip = ["extract", "-i", str(ROOT / "demo" / "clipA.mp4"), "-p", "a.json"]
    run(engine, [*engine["detector"], *clip], tmp_path)
    assert len(json.loads((tmp_path / "a.json").read_text())) == 125
    run(engine, [*engine["command"], *clip, "-o", "faces", "-D", "file", "-A", "file", "-z", "256"], tmp_path)
    assert len(list((tmp_path / "faces").glob("*.png"))) == 125
    assert written(upstream_engine.parent) == before
    assert (tmp_path / "stage" / "faceswap.log").is_file() and not (tmp_path / "home").exists()


def test_the_detector_needs_no_jax(engine: dict[str, Any]) -> None:
    done = subprocess.run([engine["python"], "-c", "import jax"], capture_output=True)
    assert done.returncode == 1


SAVE = """
import json, sys, keras
given = keras.Input((4,))
keras.Model(given, keras.layers.Dense(2)(given)).save(sys.argv[1] + "/original.keras")
json.dump({"name": "original", "iterations": 7}, open(sys.argv[1] + "/original_state.json", "w"))
"""

# Makes all numbers of a saved model infinite.
SPOIL = """
import h5py, io, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as pack:
    contents = {name: pack.read(name) for name in pack.namelist()}
weights = io.BytesIO(contents["model.weights.h5"])
def spoil(name, item):
    if isinstance(item, h5py.Dataset):
        item[...] = float("inf")
with h5py.File(weights, "r+") as file:
    file.visititems(spoil)
contents["model.weights.h5"] = weights.getvalue()
with zipfile.ZipFile(sys.argv[1], "w") as pack:
    [pack.writestr(name, content) for name, content in contents.items()]
"""


@pytest.mark.parametrize(
    ("damage", "told"),
    [("", ""), ("cut", "cannot be loaded ("), ("bit", "CRC"), ("weights", "no model.weights"), ("inf", "not finite")],
)
def test_whether_a_model_can_be_loaded(engine: dict[str, Any], tmp_path: Path, damage: str, told: str) -> None:
    run(engine, [engine["python"], "-c", SAVE, str(tmp_path)], tmp_path)
    model = tmp_path / "original.keras"
    data = bytearray(model.read_bytes())
    if damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "bit":
        data[len(data) // 2] ^= 1
    model.write_bytes(data)
    if damage == "weights":
        with zipfile.ZipFile(model) as old:
            rest = {name: old.read(name) for name in old.namelist() if name != "model.weights.h5"}
        with zipfile.ZipFile(model, "w") as new:
            for name, content in rest.items():
                new.writestr(name, content)
    if damage == "inf":
        run(engine, [engine["python"], "-c", SPOIL, str(model)], tmp_path)
    done = subprocess.run([*engine["check_model"], str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (65 if damage else 0, "")
    assert told in done.stderr and done.stderr.count("\n") == bool(damage)


def test_a_gpu_that_is_not_there_is_told(upstream_engine: Path, engine: dict[str, Any], tmp_path: Path) -> None:
    wanted = engine | {"backend": "nvidia", "compute_capability": "8.6"}
    (tmp_path / "engine.json").write_text(json.dumps(wanted))
    trial = [engine["python"], str(upstream_engine.parent / "try_engine.py"), str(tmp_path / "engine.json")]
    done = subprocess.run(trial, capture_output=True, text=True)
    assert done.returncode == 1
    assert "is to compute on the GPU (compute capability 8.6), but it computes on the CPU" in done.stderr


@pytest.mark.skipif("FACESWAP_ENGINE" in os.environ, reason="the engine of FACESWAP_ENGINE is left as it is")
def test_a_second_run_changes_nothing(upstream_engine: Path) -> None:
    for words in ((), ("--check",)):
        done = install(upstream_engine.parent, *words)
        assert done.returncode == 0 and "changed=0" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"faceswap_install_commit": "master"}, "faceswap_install_commit is master, which is no commit: give all 40"),
        ({"faceswap_install_commit": "0" * 40}, f"does not have the commit {'0' * 40}"),
        ({"faceswap_install_source": "/no/source", "faceswap_install_commit": "1" * 40}, "There is no /no/source on"),
        ({"faceswap_install_python": "/usr/bin/no-python"}, "name another Python"),
        ({"faceswap_install_need_mb": 10**9}, "free some room"),
        ({"faceswap_install_target": "rocm"}, "value of faceswap_install_target must be one of"),
    ],
)
def test_what_cannot_work_is_told_in_a_sentence(tmp_path: Path, values: dict[str, Any], sentence: str) -> None:
    done = install(tmp_path / "engine", **values)
    assert done.returncode == 2 and sentence in done.stdout and "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "engine" / "engine.json").exists()
