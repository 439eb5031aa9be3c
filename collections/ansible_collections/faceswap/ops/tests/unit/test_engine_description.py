"""`engine_description` as Ansible runs it, with a trial of the test's own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.faceswap.ops.plugins.modules import engine_description

COLLECTIONS = Path(engine_description.__file__).parents[5]

PROGRAM = f"""
import sys; sys.path.insert(0, {str(COLLECTIONS)!r})
from ansible.module_utils.testing import patch_module_args
from ansible_collections.faceswap.ops.plugins.modules import engine_description
import json
with patch_module_args(json.load(sys.stdin)):
    engine_description.main()
"""

TRIAL = """
import json, sys
told = json.load(open(sys.argv[1]))
print("tried", told["name"])
if told["name"] == "broken":
    sys.exit("a line\\nThe engine has no parts: bring them.")
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the trial, and an engine's Python that is not the one of these tests, whom it would see."""
    (tmp_path / "trial.py").write_text(TRIAL)
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    return tmp_path


def play(place: Path, name: str, **values: Any) -> dict[str, Any]:
    arguments = {
        "path": str(place / "engine.json"),
        "trial": str(place / "trial.py"),
        "description": {"name": name, "python": str(place / "venv" / "bin" / "python")},
        **values,
    }
    words = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(words, input=json.dumps(arguments), capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert {path.name for path in place.iterdir()} <= {"engine.json", "trial.py", "venv"}
    return answer


def test_tried_once_and_then_left_alone(place: Path) -> None:
    check = play(place, "good", _ansible_check_mode=True)
    assert check["changed"] and "said" not in check and not (place / "engine.json").exists()
    mask = os.umask(0o077)
    made = play(place, "good")
    os.umask(mask)
    assert made["changed"] and made["said"] == "tried good" and made["diff"]["before"] == ""
    assert json.loads((place / "engine.json").read_text())["name"] == "good"
    assert (place / "engine.json").stat().st_mode & 0o777 == 0o644
    again = play(place, "good")
    assert not again["changed"] and "said" not in again


@pytest.mark.parametrize("before", [True, False])
def test_an_engine_that_does_not_work_has_no_description(place: Path, before: bool) -> None:
    if before:
        play(place, "good")
    failed = play(place, "broken")
    assert failed["failed"]
    assert failed["msg"] == "The engine was installed, but does not work: The engine has no parts: bring them."
    assert not (place / "engine.json").exists()


def test_nothing_is_tried_beside_a_program_of_the_engine(place: Path) -> None:
    play(place, "good")
    job = [str(place / "venv" / "bin" / "python"), "-c", "input()"]
    with subprocess.Popen(job, stdin=subprocess.PIPE) as running:
        refused = play(place, "broken")
        again = play(place, "good")
        assert running.poll() is None
        running.kill()
    assert refused["failed"] and f"but process {running.pid} uses it: wait until that has ended" in refused["msg"]
    assert not again["changed"] and json.loads((place / "engine.json").read_text())["name"] == "good"
    assert play(place, "better")["said"] == "tried better"


def test_a_folder_that_is_not_there_is_told(place: Path) -> None:
    failed = play(place, "good", path=str(place / "nowhere" / "engine.json"))
    assert failed["failed"] and "could not be written" in failed["msg"]
