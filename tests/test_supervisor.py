"""The supervisor as a program, with a counting double in the engine's place."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
SUPERVISOR = HERE.parent / "roles" / "faceswap_run" / "files" / "supervisor.py"
Json = dict[str, Any]


def wait_until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Return the condition's first true value; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)
    return value


class Job:
    """A job folder, and the supervisor asked as the action plugin asks it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "job of mine"
        self.folder.mkdir()
        self.engine = folder / "engine.json"
        self.identity = folder / "engine"
        self.identity.mkdir()
        (self.identity / "code.py").write_text("1")
        self.engine.write_text(
            json.dumps(
                {
                    "name": "double",
                    "command": [sys.executable, str(HERE / "engine_double.py")],
                    "python": sys.executable,
                    "identity": [str(self.identity)],
                }
            )
        )
        (self.folder / "in.txt").write_text("a face")

    def ask(self, verb: str, *words: str, spec: Json | None = None) -> Json:
        done = subprocess.run(
            [str(SUPERVISOR), verb, str(self.folder), *words],
            input=json.dumps(spec or {}),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "Traceback" not in done.stderr
        answer: Json = json.loads(done.stdout)
        assert (done.returncode == 0) == ("error" not in answer)
        return answer

    def start(self, spec: Json, *flags: str) -> Json:
        return self.ask("start", spec["stage"], *flags, spec=spec)

    def status(self, stage: str) -> Json:
        return self.ask("status", stage)

    def finish(self, spec: Json) -> Json:
        """Start a stage and wait for its end; return its last status with `changed` and `reason`."""
        answer = self.start(spec)
        assert "error" not in answer, answer
        wait_until(lambda: not self.status(spec["stage"])["alive"])
        return {**self.status(spec["stage"]), **answer}

    def state(self, stage: str) -> Json:
        content: Json = json.loads((self.folder / "stages" / stage / "state.json").read_text())
        return content

    def convert(self, **changes: Any) -> Json:
        return {
            "stage": "convert",
            "engine_file": str(self.engine),
            "arguments": ["convert", "-i", "in.txt", "-o", "out"],
            "inputs": ["in.txt"],
            "outputs": ["out"],
            **changes,
        }

    def train(self, total: int, every: float = 0.0, **changes: Any) -> Json:
        return {
            "stage": "train",
            "engine_file": str(self.engine),
            "arguments": ["train", "-m", "model"],
            "neutral_arguments": ["--every", str(every)],
            "inputs": ["in.txt"],
            "outputs": ["model"],
            "iterations": total,
            "model": "model",
            **changes,
        }

    def iterations(self) -> int:
        try:
            return int(json.loads((self.folder / "model" / "double_state.json").read_text())["iterations"])
        except (OSError, ValueError):  # not there yet, or just being written
            return 0


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    made = Job(tmp_path)
    yield made
    made.ask("stop")


def test_a_stage_is_run_once_and_recorded(job: Job) -> None:
    end = job.finish(job.convert())
    assert (job.folder / "out" / "1.txt").read_text() == "A FACE"
    assert end["changed"] and end["complete"] and end["exit_code"] == 0
    assert end["progress"]["state"] == "done"
    assert (end["progress"]["done"], end["progress"]["total"]) == (2, 2)
    state = job.state("convert")
    assert state["seconds"] > 0 and state["engine"]["name"] == "double"
    assert "the double begins" in (job.folder / "stages" / "convert" / "log.txt").read_text()

    again = job.start(job.convert())
    assert not again["changed"] and not again["running"] and again["reason"] == "nothing changed"


def test_check_mode_says_what_would_be_done_and_does_nothing(job: Job) -> None:
    before = sorted(job.folder.rglob("*"))
    assert job.start(job.convert(), "--check")["changed"]
    assert job.start(job.convert(inputs=["not yet.txt"]), "--check")["changed"]
    assert sorted(job.folder.rglob("*")) == before
    job.finish(job.convert())
    assert not job.start(job.convert(), "--check")["changed"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda job: (job.folder / "in.txt").write_text("another"), "in.txt changed"),
        (lambda job: (job.identity / "code.py").write_text("2"), "the engine changed"),
        (lambda job: (job.folder / "out" / "1.txt").write_text("edited"), "what it made was changed by hand"),
        (lambda job: (job.folder / "out" / "1.txt").unlink(), "out is gone"),
    ],
)
def test_what_changed_is_done_again(job: Job, change: Callable[[Job], Any], reason: str) -> None:
    job.finish(job.convert())
    change(job)
    end = job.finish(job.convert())
    assert end["changed"] and end["reason"] == reason and end["complete"]


def test_settings_run_a_stage_again_and_neutral_ones_do_not(job: Job) -> None:
    job.finish(job.convert())
    assert not job.start(job.convert(neutral_arguments=["-s", "7"]))["changed"]
    end = job.finish(job.convert(arguments=["convert", "-i", "in.txt", "-o", "out", "-s", "7"]))
    assert end["reason"] == "the settings changed"


def test_a_touched_input_with_the_same_content_changes_nothing(job: Job) -> None:
    job.finish(job.convert())
    os.utime(job.folder / "in.txt", (1, 1))
    (job.identity / "__pycache__").mkdir()
    (job.identity / "__pycache__" / "code.pyc").write_text("byte code")
    assert not job.start(job.convert())["changed"]


def test_a_person_may_weed_out_what_is_editable(job: Job) -> None:
    spec = job.convert(editable=["out"])
    job.finish(spec)
    (job.folder / "out" / "2.txt").write_text("added by hand")
    assert not job.start(spec)["changed"]
    for file in (job.folder / "out").iterdir():
        file.unlink()
    assert job.start(spec)["reason"] == "out is gone"


def test_training_counts_to_a_total(job: Job) -> None:
    end = job.finish(job.train(5))
    assert end["iterations"] == job.iterations() == 5
    assert not job.start(job.train(5))["changed"]
    assert not job.start(job.train(3))["changed"]
    end = job.finish(job.train(8))
    assert end["reason"] == "5 of 8 iterations are done"
    assert end["command"][-2:] == ["-i", "3"]
    assert job.iterations() == 8
    rows = (job.folder / "stages" / "train" / "losses.csv").read_text().splitlines()
    assert rows[0] == "iteration,loss_a,loss_b" and rows[-1] == "8,0.125,0.5"


def test_a_stop_saves_and_the_next_run_goes_on(job: Job) -> None:
    job.start(job.train(100_000, every=0.02))
    wait_until(lambda: job.iterations() > 3)
    assert job.ask("stop") == {"changed": True, "stopped": ["train"]}
    saved, status = job.iterations(), job.status("train")
    assert 3 < saved < 100_000 and not status["alive"] and not status["complete"]
    assert status["progress"]["state"] == "stopped"
    assert status["message"].endswith(f"saved at {saved} of 100000 iterations: run it again to go on.")
    assert job.ask("stop") == {"changed": False, "stopped": []}
    end = job.finish(job.train(saved + 2))
    assert end["complete"] and job.iterations() == saved + 2
    assert end["seconds"] > 0


def test_progress_tells_rate_losses_and_time_left(job: Job) -> None:
    job.start(job.train(100_000, every=0.02))
    progress = wait_until(lambda: (p := job.status("train")["progress"]).get("eta") and p)
    assert progress["state"] == "running" and progress["total"] == 100_000
    assert 1 < progress["rate"] < 60
    assert progress["loss_b"] == 0.5 and progress["loss_a"] > 0
    assert progress["eta"] == pytest.approx((100_000 - progress["done"]) / progress["rate"], rel=0.05)


def test_a_running_stage_is_joined_and_not_begun_twice(job: Job) -> None:
    spec = job.train(100_000, every=0.02)
    job.start(spec)
    first = job.state("train")["supervisor_pid"]
    joined = job.start(spec)
    assert joined["running"] and joined["reason"] == "it was running already"
    assert job.state("train")["supervisor_pid"] == first
    assert "is running with other settings" in job.start(job.train(7))["error"]


def test_a_killed_supervisor_loses_nothing(job: Job) -> None:
    job.start(job.train(100_000, every=0.02))
    wait_until(lambda: job.iterations() > 3)
    os.kill(job.state("train")["supervisor_pid"], signal.SIGKILL)
    end = job.finish(job.train(job.iterations() + 50, every=0.001))
    assert end["complete"] and job.iterations() == end["iterations"]


def test_an_engine_that_outlives_its_supervisor_is_ended_first(job: Job) -> None:
    """A silent one does not notice by its closed pipe, and two must not work on one model."""
    job.engine.write_text(json.dumps({"command": ["sleep"], "python": sys.executable}))
    job.start(job.convert(arguments=["60"]))
    first = job.state("convert")
    os.kill(first["supervisor_pid"], signal.SIGKILL)
    wait_until(lambda: not gone_or_zombie(first["engine_pid"]) and job.status("convert")["alive"])
    assert job.start(job.convert(arguments=["60"]))["running"]
    assert job.state("convert")["engine_pid"] != first["engine_pid"]
    assert gone_or_zombie(first["engine_pid"])


def gone_or_zombie(pid: int) -> bool:
    """Tell whether a process has ended, reaped or not."""
    try:
        return not Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return True


def test_supervisor_and_engine_killed_at_once(job: Job) -> None:
    job.start(job.train(100_000, every=0.02))
    wait_until(lambda: job.iterations() > 3)
    state = job.state("train")
    os.kill(state["supervisor_pid"], signal.SIGKILL)
    os.kill(state["engine_pid"], signal.SIGKILL)
    wait_until(lambda: not job.status("train")["alive"])
    assert not job.status("train")["complete"]
    saved = job.iterations()
    assert job.finish(job.train(saved + 2))["iterations"] == saved + 2


def test_an_ignored_sigint_does_not_reach_the_engine(job: Job) -> None:
    """A shell's background jobs inherit it ignored, and an engine would never save."""
    job.engine.write_text(json.dumps({"command": ["sleep"], "python": sys.executable}))
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        job.start(job.convert(arguments=["60"]))
    finally:
        signal.signal(signal.SIGINT, before)
    status = Path(f"/proc/{job.state('convert')['engine_pid']}/status").read_text()
    ignored = int(next(line for line in status.splitlines() if line.startswith("SigIgn")).split()[1], 16)
    assert not ignored >> (signal.SIGINT - 1) & 1
    assert job.ask("stop")["changed"]


def test_a_model_of_other_inputs_is_set_aside_and_comes_back(job: Job) -> None:
    job.finish(job.train(9))
    (job.folder / "in.txt").write_text("another face")
    end = job.finish(job.train(4))
    assert end["reason"] == "in.txt changed" and job.iterations() == 4
    (job.folder / "in.txt").write_text("a face")
    back = job.start(job.train(9))
    assert back["changed"] and not back["running"] and "brought back" in back["reason"]
    assert job.iterations() == 9
    assert not job.start(job.train(9))["changed"]


def test_a_failed_stage_loses_nothing_and_says_why(job: Job) -> None:
    job.finish(job.convert())
    broken = job.convert(arguments=["fail"])
    end = job.finish(broken)
    assert not end["complete"] and end["exit_code"] == 3
    assert end["message"] == "The disk is on fire: put it out."
    assert end["progress"]["state"] == "failed"
    assert job.start(job.convert())["changed"]
    assert (job.folder / "out" / "1.txt").read_text() == "A FACE"


def test_an_engine_that_makes_nothing_has_failed(job: Job) -> None:
    end = job.finish(job.convert(outputs=["out", "elsewhere"]))
    assert not end["complete"] and end["exit_code"] == 1
    assert "made no elsewhere" in end["message"]


def test_a_killed_engine_is_told(job: Job) -> None:
    job.start(job.train(100_000, every=0.02))
    wait_until(lambda: job.iterations() > 0)
    os.kill(job.state("train")["engine_pid"], signal.SIGKILL)
    wait_until(lambda: not job.status("train")["alive"])
    assert "ended by SIGKILL" in job.status("train")["message"]
    assert job.status("train")["exit_code"] == 137


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"engine_file": "/nonexistent/engine.json"}, "No engine is installed"),
        ({"inputs": ["nothing.mp4"]}, "nothing.mp4 is missing: run the stage that makes it first"),
        ({"need_mb": 10**9}, "MB are free in"),
    ],
)
def test_what_may_not_start_is_refused_in_one_sentence(job: Job, changes: Json, words: str) -> None:
    answer = job.start(job.convert(**changes))
    assert words in answer["error"]
    assert "\n" not in answer["error"]
    assert not (job.folder / "out").exists()


def test_a_full_disk_is_told_before_the_engine_starts(job: Job, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], check=True)
    try:
        small = Job(disk)
        assert "Only 2 MB are free" in small.start(small.convert(need_mb=500))["error"]
        assert small.finish(small.convert(need_mb=1))["complete"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
