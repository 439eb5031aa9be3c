"""The supervisor as a program, with a counting double in the engine's place."""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from supervised_job import HERE, PROGRAMS, REAL_PROGRAMS, SUPERVISOR, UNITS, Job, wait_until

Json = dict[str, Any]


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
    assert joined["command"] == job.state("train")["command"]
    assert job.state("train")["supervisor_pid"] == first
    assert "is running with other settings" in job.start(job.train(7))["error"]


def test_a_stage_that_runs_on_other_inputs_is_not_joined(job: Job) -> None:
    spec = job.train(100_000, every=0.02)
    job.start(spec)
    (job.folder / "in.txt").write_text("another face")
    assert job.start(spec)["error"] == (
        "Stage train is running on other inputs (in.txt changed): stop it with the tag stop, and run again."
    )
    assert "running on other inputs" in job.start(spec, "--check")["error"]
    assert job.ask("stop")["changed"]
    assert job.start(spec)["reason"] == "in.txt changed"


def test_what_a_running_stage_works_on_is_not_made_anew(job: Job) -> None:
    job.finish(job.convert())
    job.start(job.train(100_000, every=0.02, inputs=["out"]))
    assert not job.start(job.convert())["changed"]
    (job.folder / "in.txt").write_text("another face")
    assert job.start(job.convert())["error"] == (
        "Stage train is running on out, which stage convert would make anew: wait for it, or stop it with the tag "
        "stop, and run again."
    )
    assert (job.folder / "out" / "1.txt").read_text() == "A FACE"
    assert job.ask("stop")["changed"]
    assert job.finish(job.convert())["complete"]


def two_starts_at_once(job: Job, spec: Json) -> list[str]:
    """Start a stage of a trained job twice while its new input is being hashed; return both reasons."""
    face = job.folder / "in.txt"
    face.unlink()
    os.mkfifo(face)  # who reads it waits
    words = [str(job.program), "start", str(job.folder), spec["stage"]]
    pipe = subprocess.PIPE
    starts = [subprocess.Popen(words, env=job.environment(), stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for start in starts:
        assert start.stdin
        start.stdin.write(json.dumps(spec))
        start.stdin.flush()
        start.stdin.close()
        start.stdin = None
    time.sleep(2)  # both are as far as they come
    os.close(os.open(face, os.O_WRONLY))
    return sorted(json.loads(start.communicate(timeout=60)[0]).get("reason", "") for start in starts)


def test_of_two_starts_at_once_the_second_joins(job: Job) -> None:
    job.finish(job.train(9))
    assert two_starts_at_once(job, job.train(100_000, every=0.02)) == ["in.txt changed", "it was running already"]
    (kept,) = (job.folder / "superseded").glob("train-*/model/double_state.json")
    assert json.loads(kept.read_text())["iterations"] == 9


def test_a_model_that_is_in_the_way_is_kept(job: Job) -> None:
    job.finish(job.train(9))
    shelf = job.folder / "superseded" / f"train-{job.state('train')['fingerprint']['digest'][:12]}"
    shutil.copytree(job.folder / "model", shelf / "model")
    (shelf / "model" / "of_long_ago").touch()
    (job.folder / "in.txt").write_text("another face")
    assert job.finish(job.train(4))["complete"]
    assert len(list((job.folder / "superseded").glob("*/model/of_long_ago"))) == 1
    (job.folder / "in.txt").write_text("a face")
    job.start(job.train(9))
    assert job.iterations() == 9


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


def test_a_fault_of_the_supervisor_is_recorded(job: Job) -> None:
    answer = job.start(job.train(3, training={"batch_size": "many"}))
    assert answer["error"].startswith("The stage's supervisor failed itself (ValueError: ")
    end = job.status("train")
    assert end["message"] == answer["error"] and end["exit_code"] == 1 and end["progress"]["state"] == "failed"
    assert "Traceback" in (job.folder / "stages" / "train" / "log.txt").read_text()


def test_a_refused_word_is_told(job: Job) -> None:
    end = job.finish(job.convert(arguments=["convert", "-b", "many"]))
    assert not end["complete"] and end["message"].startswith("argument -b/--batch: invalid int value")


def test_the_engine_knows_where_its_stage_is(job: Job) -> None:
    job.describe_environment("FACESWAP_OCI_STAGE_DIR")
    assert job.finish(job.convert())["complete"]
    assert (job.folder / "out" / "1.txt").read_text() == str(job.folder / "stages" / "convert")


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


def test_a_disk_that_becomes_full_is_told_and_the_next_run_mends_it(job: Job, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=True)
    try:
        small = Job(disk)
        end = small.finish(small.convert(arguments=["fill", "-o", "out"]))
        assert not end["complete"] and end["exit_code"] == 1 and end["progress"]["state"] == "failed"
        assert end["message"] == (
            f"The disk of {small.folder} is full: free some room, or set faceswap_run_dir to a larger disk, "
            "and run it again."
        )
        assert not (small.folder / "out").exists()  # half a result is of no use, and takes the room of the next
        assert small.finish(small.convert())["complete"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


class UnitJob(Job):
    """A job whose stages run in units of a double of systemd, asked as root asks."""

    program = UNITS

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.systemd = folder / "systemd"
        self.systemd.mkdir()
        (self.systemd / "systemctl").symlink_to(HERE / "systemd_double.py")
        (self.systemd / "jobs").write_text(str(folder))
        (self.systemd / "supervisor").write_text(str(SUPERVISOR))
        (self.systemd / "system").write_text("running")

    def environment(self) -> dict[str, str]:
        path = f"{self.systemd}:/usr/bin:/bin"
        return {
            **os.environ,
            "PATH": path,
            "SYSTEMD_DOUBLE": str(self.systemd),
            "RUNTIME_DIRECTORY": str(self.systemd),
        }

    def systemctl(self, *words: str) -> None:
        subprocess.run([str(self.systemd / "systemctl"), *words], env=self.environment(), check=True, timeout=60)

    def resume(self) -> list[list[str]]:
        """What the boot does."""
        done = subprocess.run(
            [str(UNITS), "resume", str(self.folder.parent)],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        stages: list[list[str]] = json.loads(done.stdout)["resumed"]
        return stages

    def unit(self, stage: str) -> Json:
        unit: Json = json.loads((self.systemd / f"faceswap-oci@job\\x20of\\x20mine-{stage}.service.json").read_text())
        return unit

    def wanted(self, stage: str) -> bool:
        return (self.folder / "stages" / stage / "wanted").exists()

    def end(self, stage: str) -> Json:
        wait_until(lambda: not self.status(stage)["alive"])
        return self.status(stage)


@pytest.fixture
def unit_job(tmp_path: Path) -> Iterator[UnitJob]:
    made = UnitJob(tmp_path)
    yield made
    made.ask("stop")


def test_a_stage_runs_in_its_unit(unit_job: UnitJob) -> None:
    end = unit_job.finish(unit_job.convert())
    assert end["changed"] and end["complete"] and not unit_job.wanted("convert")
    assert unit_job.unit("convert") == {"ActiveState": "inactive", "Job": "", "code": 0, "tries": 1}
    again = unit_job.start(unit_job.convert())
    assert not again["changed"] and not again["running"]
    assert unit_job.start(unit_job.convert(arguments=["convert"]), "--check")["changed"]
    assert not unit_job.wanted("convert")


@pytest.mark.parametrize("victim", ["engine_pid", "supervisor_pid"])
def test_in_a_unit_what_is_killed_goes_on_by_itself(unit_job: UnitJob, victim: str) -> None:
    unit_job.start(unit_job.train(60, every=0.05))
    wait_until(lambda: unit_job.iterations() > 3)
    saved = unit_job.iterations()
    os.kill(unit_job.state("train")[victim], signal.SIGKILL)
    while unit_job.status("train")["alive"]:
        pass
    assert unit_job.iterations() == 60, "a watcher would have given up"
    end = unit_job.end("train")
    assert end["complete"] and end["iterations"] == 60 and unit_job.unit("train")["tries"] == 2
    assert int(unit_job.state("train")["command"][-1]) <= 60 - saved, "it was begun anew"


def test_in_a_unit_a_failure_of_the_engine_is_not_tried_again(unit_job: UnitJob) -> None:
    unit_job.start(unit_job.convert(arguments=["fail"]))
    end = unit_job.end("convert")
    assert end["message"] == "The disk is on fire: put it out." and end["exit_code"] == 3
    assert unit_job.unit("convert")["tries"] == 1 and not unit_job.wanted("convert")
    unit_job.engine.write_text(json.dumps({"command": ["/nonexistent/faceswap"], "python": sys.executable}))
    unit_job.start(unit_job.convert(arguments=["another"]))
    end = unit_job.end("convert")
    assert "/nonexistent/faceswap" in end["message"] and not unit_job.wanted("convert")


def test_a_shutdown_saves_and_the_boot_goes_on(unit_job: UnitJob) -> None:
    spec = unit_job.train(100_000, every=0.02)
    unit_job.start(spec)
    wait_until(lambda: unit_job.iterations() > 3)
    (unit_job.systemd / "system").write_text("stopping")
    unit_job.systemctl("shutdown")
    saved = unit_job.iterations()
    assert unit_job.wanted("train") and unit_job.state("train")["again"]
    assert unit_job.status("train")["alive"], "a watcher must wait for the boot"
    (unit_job.systemd / "system").write_text("starting")
    resume = unit_job.systemd / "faceswap-oci-resume.service.json"
    resume.write_text(json.dumps({"ActiveState": "inactive", "Job": "7"}))
    assert unit_job.status("train")["alive"], "the boot has not come to it yet"
    assert unit_job.start(spec)["reason"] == "it was running already"
    assert unit_job.resume() == [["job of mine", "train"]]
    resume.write_text(json.dumps({"ActiveState": "active", "Job": ""}))
    wait_until(lambda: unit_job.iterations() > saved)
    assert "is running with other settings" in unit_job.start(unit_job.train(7))["error"]
    assert unit_job.ask("stop") == {"changed": True, "stopped": ["train"]}


def test_a_boot_that_comes_to_a_stage_between_two_looks_does_not_hide_it(unit_job: UnitJob) -> None:
    unit_job.finish(unit_job.convert())
    unit, resume = "faceswap-oci@job\\x20of\\x20mine-convert.service", "faceswap-oci-resume.service"
    (unit_job.systemd / f"{resume}.json").write_text(json.dumps({"ActiveState": "inactive", "Job": "7"}))
    booted = {unit: {"ActiveState": "active", "Job": ""}, resume: {"ActiveState": "active", "Job": ""}}
    (unit_job.systemd / "afterwards").write_text(json.dumps(booted))
    assert unit_job.status("convert")["alive"]
    (unit_job.systemd / f"{unit}.json").unlink()


def test_in_a_unit_the_second_of_two_starts_at_once_joins(unit_job: UnitJob) -> None:
    unit_job.finish(unit_job.train(9))
    spec = unit_job.train(100_000, every=0.02)
    assert two_starts_at_once(unit_job, spec) == ["in.txt changed", "it was running already"]
    (kept,) = (unit_job.folder / "superseded").glob("train-*/model/double_state.json")
    assert json.loads(kept.read_text())["iterations"] == 9


def test_in_a_unit_a_stage_that_runs_on_other_inputs_is_not_joined(unit_job: UnitJob) -> None:
    spec = unit_job.train(100_000, every=0.02)
    unit_job.start(spec)
    wait_until(lambda: unit_job.iterations() > 3)
    (unit_job.folder / "in.txt").write_text("another face")
    assert "is running on other inputs (in.txt changed)" in unit_job.start(spec)["error"]


def test_a_stop_by_a_person_outlasts_the_boot(unit_job: UnitJob) -> None:
    unit_job.start(unit_job.train(100_000, every=0.02))
    wait_until(lambda: unit_job.iterations() > 3)
    assert unit_job.ask("stop") == {"changed": True, "stopped": ["train"]}
    assert unit_job.status("train")["progress"]["state"] == "stopped" and not unit_job.wanted("train")
    assert unit_job.ask("stop") == {"changed": False, "stopped": []}
    assert unit_job.resume() == []
    saved = unit_job.iterations()
    assert unit_job.finish(unit_job.train(saved + 2))["iterations"] == saved + 2


def test_a_stop_reaches_what_only_waits_for_the_boot(unit_job: UnitJob) -> None:
    unit_job.start(unit_job.train(100_000, every=0.02))
    wait_until(lambda: unit_job.iterations() > 3)
    unit_job.systemctl("shutdown")
    assert unit_job.ask("stop") == {"changed": True, "stopped": ["train"]}
    assert unit_job.resume() == []


def test_a_stop_leaves_a_job_of_the_same_name_in_another_folder_alone(unit_job: UnitJob) -> None:
    """Both have the same units, of which only this job's may be ended."""
    unit_job.start(unit_job.train(100_000, every=0.02))
    wait_until(lambda: unit_job.iterations() > 3)
    other = unit_job.folder.parent / "earlier" / unit_job.folder.name
    shutil.copytree(unit_job.folder, other)
    (other / "stages" / "train" / "wanted").unlink()
    words = [str(UNITS), "stop", str(other)]
    done = subprocess.run(words, env=unit_job.environment(), capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == {"changed": False, "stopped": []}
    assert unit_job.status("train")["alive"] and unit_job.wanted("train")
    assert unit_job.ask("stop") == {"changed": True, "stopped": ["train"]}


def test_a_kill_between_the_end_and_its_mark_runs_nothing_again(unit_job: UnitJob) -> None:
    unit_job.finish(unit_job.convert())
    before = unit_job.state("convert")
    (unit_job.folder / "stages" / "convert" / "wanted").touch()
    assert unit_job.resume() == [["job of mine", "convert"]]
    unit_job.end("convert")
    assert unit_job.state("convert") == before and not unit_job.wanted("convert")


def test_a_kill_before_the_unit_starts_is_mended_by_boot_or_person(unit_job: UnitJob) -> None:
    """The supervisor is ready, and root was killed before it could start the unit."""
    spec = unit_job.convert()
    ready = Job.program
    done = subprocess.run(
        [str(ready), "start", str(unit_job.folder), "convert", "--unit", "idle"],
        input=json.dumps(spec),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["launch"] and unit_job.wanted("convert")
    assert not unit_job.status("convert")["alive"]
    assert unit_job.finish(spec)["complete"]


def test_what_changed_while_it_was_interrupted_does_not_go_on_by_itself(unit_job: UnitJob) -> None:
    unit_job.start(unit_job.train(100_000, every=0.02))
    wait_until(lambda: unit_job.iterations() > 3)
    unit_job.systemctl("shutdown")
    (unit_job.identity / "code.py").write_text("2")
    saved = unit_job.iterations()
    unit_job.resume()
    end = unit_job.end("train")
    assert "changed while it was interrupted" in end["message"] and end["exit_code"] == 1
    assert unit_job.iterations() == saved and not unit_job.wanted("train")
    assert unit_job.start(unit_job.train(5))["reason"] == "the engine changed"


def test_root_works_on_a_job_as_its_owner_alone() -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(PROGRAMS, folder / "bin")
        (folder / "jobs").mkdir(mode=0o750)
        made = UnitJob(folder / "jobs")
        made.program = folder / "bin" / "units.py"
        (made.systemd / "supervisor").write_text("true")  # the unit itself is not looked at here
        for path in ((folder / "jobs"), *(folder / "jobs").rglob("*")):
            os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
        (made.folder / "stages").symlink_to(folder)  # out of the jobs, to where only root may write
        assert f"Permission denied: '{made.folder}/stages/convert" in made.start(made.convert())["error"]
        assert not (folder / "convert").exists()
        (made.folder / "stages").unlink()
        made.engine.chmod(0o600)
        os.chown(made.engine, 0, 0)
        assert f"{made.engine} may not be read by the user of the jobs" in made.start(made.convert())["error"]
        os.chown(made.engine, nobody.pw_uid, nobody.pw_gid)
        assert made.start(made.convert())["running"]
        spec = made.folder / "stages" / "convert" / "spec.json"
        assert spec.owner() == "nobody" and spec.stat().st_mode & 0o777 == 0o640
        made.ask("stop")


def what_is(name: str, **given: Any) -> Any:
    """Return what Ansible makes of a variable of the role."""
    loader = DataLoader()
    variables = loader.load_from_file(str(REAL_PROGRAMS.parent / "vars" / "main.yml"), trusted_as_template=True)
    templar = Templar(loader=loader, variables={**variables, **given})
    return templar.template(trust_as_template(f"{{{{ {name} }}}}"))


@pytest.mark.parametrize(
    ("account", "taken"),
    [
        (None, False),
        (["x", "999", "999", "", "/srv/faceswap-oci/jobs", "/usr/sbin/nologin"], False),
        (["x", "999", "999", "", "/a-larger-disk/jobs", "/usr/sbin/nologin"], False),
        (["x", "1000", "1000", "Ubuntu", "/home/ubuntu", "/bin/bash"], True),
        (["x", "33", "33", "www-data", "/var/www", "/usr/sbin/nologin"], True),
    ],
)
def test_an_account_that_is_there_for_other_work_is_seen(account: list[str] | None, taken: bool) -> None:
    """The role would give it another shell and home."""
    facts = {"getent_passwd": {"somebody": account}}
    assert what_is("__faceswap_run_user_is_taken", faceswap_run_user="somebody", ansible_facts=facts) is taken


def unit_files(folder: Path, name: str, *cases: Json) -> tuple[list[str | None], str]:
    """Return what the role's template of a unit becomes with variables, None where nothing, and what is said."""
    usual: Json = {
        "faceswap_run_dir": "/srv/100 %",
        "faceswap_run_user": "faceswap",
        "faceswap_run_engine_file": "/e.json",
    }
    usual |= {"__faceswap_run_in_home": False, "ansible_facts": {"getent_group": {"video": [], "disk": []}}}
    files = [folder / str(number) for number in range(len(cases))]
    src = str(REAL_PROGRAMS.parent / "templates" / f"{name}.j2")
    tasks = [
        {
            "ansible.builtin.template": {"src": src, "dest": str(file)},
            "vars": {**usual, **given},
            "ignore_errors": True,
        }
        for file, given in zip(files, cases, strict=True)
    ]
    book = folder / "play.yml"
    book.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", "-c", "local", str(book)]
    command += ["-e", json.dumps({"ansible_python_interpreter": sys.executable})]
    done = subprocess.run(command, cwd=REAL_PROGRAMS.parents[2], capture_output=True, text=True)
    return [file.read_text() if file.exists() else None for file in files], done.stdout + done.stderr


@pytest.mark.parametrize("name", ["faceswap-oci@.service", "faceswap-oci-resume.service"])
def test_no_variable_adds_to_the_units_of_root(tmp_path: Path, name: str) -> None:
    evil = "\nExecStartPre=+/bin/evil"
    same: list[Json] = [{}, {"__faceswap_run_groups": ["disk" + evil]}, {"__faceswap_run_jobs": "/etc"}]
    bad = [{"faceswap_run_dir": text} for text in ("/srv" + evil, '/srv" "/etc', "/srv\\", "srv")]
    if "@" in name:
        bad += [{"faceswap_run_engine_file": "/e.json" + evil}]
        bad += [{"faceswap_run_user": text} for text in ("jobs" + evil, "jobs\n", "root", "0", "")]
    texts, said = unit_files(tmp_path, name, *same, *bad)
    own = texts[0] or ""
    assert '"/srv/100 %%/jobs"' in own and ("SupplementaryGroups=video\n" in own) == ("@" in name), said
    assert texts == [own] * len(same) + [None] * len(bad), said
    assert "cannot stand in a unit: give" in said and ("@" not in name or ": name a user" in said)


@pytest.mark.parametrize("options", ["-nf -x 3", ["-nf", "-x", "3"]])
def test_options_may_be_given_as_one_text(options: str | list[str]) -> None:
    assert what_is("__faceswap_run_train_words", faceswap_run_train_options=options) == ["-nf", "-x", "3"]


@pytest.mark.parametrize("name", ["PYTHONHOME", "LD_PRELOAD", "OTHER"])
def test_no_variable_puts_other_code_into_the_engine(job: Job, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    job.describe_environment(name)
    answer = job.environment()
    monkeypatch.setattr(job, "environment", lambda: {**answer, name: ""})
    assert job.finish(job.convert())["complete"] == (name == "OTHER")
