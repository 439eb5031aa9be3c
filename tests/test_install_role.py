"""What faceswap_install decides, and the program with which it tries an engine."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROOT = Path(__file__).parent.parent
ROLE = ROOT / "roles" / "faceswap_install"
TRIAL = ROLE / "files" / "try_engine.py"

# A torch in which tensors are NumPy's; PRODUCT may spoil what it multiplies.
TORCH = """
import os, numpy
__version__ = "9.9"
class version: cuda = os.environ.get("BUILT_FOR")
class cuda:
    is_available = staticmethod(lambda: bool(os.environ.get("GPU")))
    get_device_name = staticmethod(lambda: "a GPU")
class tensor:
    def __init__(self, entries, device): self.array, self.device = numpy.array(entries), device
    def __matmul__(self, other):
        assert self.device == other.device
        return tensor(self.array @ other.array + float(os.environ.get("ERROR", 0)), self.device)
    def cpu(self): return self
    def tolist(self): return self.array.tolist()
"""


def role_value(name: str, **values: Any) -> Any:
    """One of the role's private variables, as Ansible sees it."""
    loaded = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())
    variables = {key: trusted(value) for key, value in loaded.items()} | values
    return Templar(loader=DataLoader(), variables=variables).template(trusted(loaded[name]))


def trusted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: trusted(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [trusted(inner) for inner in value]
    return trust_as_template(value) if isinstance(value, str) else value


@pytest.mark.parametrize(
    ("capability", "build"),
    [
        ("", "cpu"),
        ("6.0", "cu126"),
        ("6.1", "cu126"),
        ("7.0", "cu126"),
        ("7.5", "cu130"),
        ("8.0", "cu130"),
        ("8.6", "cu130"),
        ("9.0", "cu130"),
        ("10.0", "cu130"),
        ("12.0", "cu130"),
    ],
)
def test_the_build_of_torch_follows_the_compute_capability(capability: str, build: str) -> None:
    assert role_value("__faceswap_install_torch_build", faceswap_install_compute_capability=capability) == build


def test_the_supported_systems_are_those_of_the_house() -> None:
    supported = {"ubuntu": ["24.04"], "ol": ["9"], "debian": ["12", "13"]}
    assert role_value("__faceswap_install_supported") == supported


@pytest.mark.parametrize(
    ("system", "python", "packages"),
    [("debian", "python3", ["python3-venv"]), ("ol", "python3.12", ["python3.12"]), ("arch", "python3", [])],
)
def test_what_the_distribution_has_to_give(system: str, python: str, packages: list[str]) -> None:
    found = role_value("__faceswap_install_os", __faceswap_install_host={"system": {"id": system}})
    assert (found["python"], found["packages"]) == (python, packages)


def test_packages_that_are_installed_anew_are_tried_anew() -> None:
    """The old description is gone before they are, and the new one is another."""
    texts = [(ROLE / "tasks" / f"{name}.yml").read_text() for name in ("install", "verify")]
    tasks = {key: value for text in texts for task in yaml.safe_load(text) for key, value in task.items()}
    file = tasks["faceswap.ops.engine_description"]["path"]
    assert tasks["faceswap.ops.locked_venv"]["described_by"] == file
    told = [
        role_value(
            "__faceswap_install_description",
            faceswap_install_engine="builtin",
            faceswap_install_dir="/engine",
            faceswap_install_compute_capability="",
            __faceswap_install_venv={"python": "/engine/venv/bin/python", "made": made},
            __faceswap_install_brought={"results": [{"checksum": "0"}]},
        )
        for made in ("one day", "another")
    ]
    assert told[0] != told[1]
    assert {**told[0], "made": "another"} == told[1]


class Engine:
    """An engine with one module, and the doubles that it finds instead of torch and JAX."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.code = folder / "engine"
        self.code.mkdir()
        (self.code / "part.py").write_text("VALUE = 1\n")
        self.libraries = folder / "libraries"
        self.libraries.mkdir()

    def attempt(self, capability: str = "", **environment: str) -> tuple[int, str, str]:
        description = {
            "command": ["python", str(self.code / "engine.py")],
            "modules": ["part"],
            "compute_capability": capability,
        }
        path = self.folder / "engine.json"
        path.write_text(json.dumps(description))
        done = subprocess.run(
            [sys.executable, str(TRIAL), str(path)],
            env={**os.environ, "PYTHONPATH": str(self.libraries), **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path)


@pytest.fixture
def torch_engine(engine: Engine) -> Engine:
    (engine.libraries / "torch.py").write_text(TORCH)
    return engine


def test_the_product_is_the_one_that_is_known() -> None:
    spec = importlib.util.spec_from_file_location("try_engine", TRIAL)
    assert spec and spec.loader
    trial = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(trial)
    left, right = (np.array(entries) for entries in trial.matrices())
    assert (left @ right == np.array(trial.known_product())).all()
    assert np.linalg.matrix_rank(left) > 1 and np.linalg.matrix_rank(right) > 1


def test_the_real_jax_computes_it_on_the_cpu_and_the_engine_is_compiled(engine: Engine) -> None:
    code, said, error = engine.attempt(capability="8.6")  # this JAX is the CPU's: it need not use the GPU
    assert code == 0, error
    found = json.loads(said)
    assert (found["library"], found["for_gpu"], found["on_gpu"]) == ("JAX", False, False)
    assert list((engine.code / "__pycache__").glob("part.*.pyc"))


def test_torch_on_the_gpu(torch_engine: Engine) -> None:
    code, said, error = torch_engine.attempt("8.6", BUILT_FOR="13.0", GPU="1")
    assert code == 0, error
    assert json.loads(said)["device"] == "a GPU" and json.loads(said)["on_gpu"] is True


def test_a_gpu_that_is_not_used_is_a_failure_where_there_is_one(torch_engine: Engine) -> None:
    code, _, error = torch_engine.attempt("8.6", BUILT_FOR="13.0")
    assert code == 1 and "but it computes on the CPU: see that nvidia-smi works there" in error
    assert torch_engine.attempt("", BUILT_FOR="13.0")[0] == 0
    assert torch_engine.attempt("8.6")[0] == 0  # the CPU's build


@pytest.mark.parametrize("error", ["1", "nan"])
def test_a_wrong_product_is_a_failure(torch_engine: Engine, error: str) -> None:
    code, said, told = torch_engine.attempt(ERROR=error)
    assert code == 1 and not said
    assert told.startswith("The product of two matrices is wrong on CPU (torch 9.9): reboot the host")


def test_a_part_that_does_not_load_is_a_failure(engine: Engine) -> None:
    (engine.code / "part.py").write_text("raise ImportError('a part is missing')\n")
    code, _, error = engine.attempt()
    assert code == 1 and error.startswith("Its module part does not load (a part is missing): ")


def test_an_engine_with_neither_library_is_a_failure(engine: Engine) -> None:
    (engine.libraries / "sitecustomize.py").write_text(
        "import importlib.util as util\nfind = util.find_spec\n"
        "util.find_spec = lambda name: name != 'jax' and find(name)\n"
    )
    code, _, error = engine.attempt()
    assert code == 1 and error.startswith("The engine has neither torch nor JAX")
