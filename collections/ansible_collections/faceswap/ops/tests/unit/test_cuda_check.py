"""The verification, with a dummy of the driver's library that a compiler on this machine makes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.faceswap.ops.plugins.modules import cuda_check
from ansible_collections.faceswap.ops.plugins.modules.cuda_check import ELEMENTS, CudaError, check_apart, expected

SOURCE = Path(__file__).parents[6] / "molecule/nvidia_cuda/files/libcuda.c"


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler on this machine to make the dummy libcuda.so.1 with")
    made = tmp_path_factory.mktemp("cuda") / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", made, SOURCE], check=True)
    return str(made)


def test_a_gpu_that_computes_is_described(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUMMY_CUDA", "")
    assert check_apart(library, 1, 30) == {
        "cards": [{"name": "Dummy GPU", "compute_capability": "8.6", "memory_mb": 4096}],
        "compute_capability": "8.6",
        "cuda_version": "13.0",
        "elements": ELEMENTS,
    }


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            "wrong",
            f"computes wrongly: 1 of {ELEMENTS} results, the first for {ELEMENTS - 1}, .*: do not use this card",
        ),
        ("none", r"cuInit failed with CUDA_ERROR_NO_DEVICE \(100\): the driver finds no card it supports"),
        ("notready", r"CUDA_ERROR_SYSTEM_NOT_READY \(802\): .* need the service nvidia-fabricmanager"),
        ("full", r"cuMemAlloc_v2 failed with CUDA_ERROR_OUT_OF_MEMORY \(2\): other programs fill the card's memory"),
        ("fault", r"cuCtxSynchronize failed with CUDA_ERROR_ILLEGAL_ADDRESS \(700\)"),  # and not what fails after it
        ("hang", "gave no result within 1 s: .* reboot the host"),
        ("crash", "broke down .*SIGABRT"),
    ],
)
def test_a_gpu_that_does_not_compute_is_told(
    library: str, monkeypatch: pytest.MonkeyPatch, wrong: str, message: str
) -> None:
    monkeypatch.setenv("DUMMY_CUDA", wrong)
    with pytest.raises(CudaError, match=message) as failure:
        check_apart(library, 1, 1 if wrong == "hang" else 30)
    assert failure.value.busy is (wrong == "full")


def test_a_driver_that_hangs_in_the_kernel_is_not_waited_for(library: str) -> None:
    """There a process cannot be killed, and one must not wait for it, nor may it keep the module's output open."""
    program = (
        f"import sys; sys.path.insert(0, {str(Path(cuda_check.__file__).parents[5])!r})\n"
        "import multiprocessing.process\n"
        "from ansible.module_utils.testing import patch_module_args\n"
        "from ansible_collections.faceswap.ops.plugins.modules import cuda_check\n"
        "multiprocessing.process.BaseProcess.kill = lambda self: None\n"
        "cuda_check.KILLED_S = 0.1\n"
        "with patch_module_args({'timeout_s': 1}):\n"
        "    cuda_check.main()\n"
    )
    environment = {**os.environ, "LD_LIBRARY_PATH": str(Path(library).parent), "DUMMY_CUDA": "hang"}
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        said, _ = process.communicate(timeout=20)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    told = json.loads(said)
    assert process.returncode == 1 and told["failed"] and "gave no result within 1 s" in told["msg"]


def test_a_missing_gpu_is_told(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUMMY_CUDA", "")
    with pytest.raises(CudaError, match="The driver shows 1 of 2 GPUs"):
        check_apart(library, 2, 30)


def test_the_program_itself_is_what_runs(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result must come of the PTX: with another constant there, it is wrong."""
    monkeypatch.setenv("DUMMY_CUDA", "")
    monkeypatch.setattr(cuda_check, "PTX", cuda_check.PTX.replace("1664525", "1664527"))
    with pytest.raises(CudaError, match="computes wrongly"):
        check_apart(library, 1, 30)


def test_without_a_driver_its_library_is_missing() -> None:
    with pytest.raises(CudaError, match=r"cannot be loaded .*: install the driver"):
        check_apart("libcuda.so.none", 1, 30)


def test_a_library_that_lacks_a_call_is_too_old() -> None:
    with pytest.raises(CudaError, match="has no cuInit: it is too old"):
        check_apart("libc.so.6", 1, 30)


def test_the_result_is_worked_out_by_hand() -> None:
    value = 7
    for _ in range(cuda_check.ROUNDS):
        value = (1664525 * value + 1013904223) % 2**32
    assert expected(7) == value
