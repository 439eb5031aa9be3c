"""What a training needs beyond a command, and what tells slow from stuck; a counting double is the engine."""

import json
import os
import signal
import subprocess
import sys
import time
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from supervised_job import HERE, PROGRAMS, Job, Json, wait_until

sys.path.insert(0, str(PROGRAMS))

import records
import training
import versions
import watch
import watchdog

DOUBLE = [sys.executable, str(HERE / "engine_double.py")]


class Trained(Job):
    """A job that trains as the role has it train."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.describe()
        faces = self.folder / "faces_a"
        faces.mkdir()
        for number in range(100):
            (faces / f"{number}.png").touch()

    def describe(self, **changes: Any) -> None:
        """Describe the engine."""
        engine = json.loads(self.engine.read_text())
        self.engine.write_text(json.dumps({**engine, "check_model": [*DOUBLE, "check"], **changes}))

    def spec(self, total: int, *words: str, save: int | None = 5, **changes: Any) -> Json:
        """A training by `words`, which save each `save` iterations; `training` stands for batches of 4."""
        neutral = [*words, *(["-s", str(save)] if save else [])]
        how = {"batch_size": "4", "checkpoints": 3, **changes.pop("training", {})}
        return self.train(total, neutral_arguments=neutral, inputs=["faces_a"], training=how, **changes)

    @property
    def stage(self) -> Path:
        """The stage's folder."""
        return self.folder / "stages" / "train"

    @property
    def model(self) -> Path:
        """The model's folder."""
        return self.folder / "model"

    def log(self) -> str:
        """What the stage's log says."""
        return (self.stage / "log.txt").read_text()

    def kept(self) -> dict[int, Json]:
        """The versions' records, by iterations."""
        found = (self.stage / "checkpoints").glob("*/version.json")
        return {int(path.parent.name): records.read_json(path) for path in found if path.parent.name.isdigit()}

    def trained_with_versions(self) -> int:
        """Train until there is a version that was tried, and stop; return the iterations."""
        self.start(self.spec(10_000, "--every", "0.02"))
        wait_until(lambda: any(record.get("loads") for record in self.kept().values()))
        assert self.ask("stop")["changed"]
        return self.iterations()


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Trained]:
    made = Trained(tmp_path)
    yield made
    made.ask("stop")


# -- the batch size --------------------------------------------------------------------------------------


def test_when_memory_runs_out_training_goes_on_with_half_the_batch(job: Trained) -> None:
    spec = job.spec(8, "--memory", "10", training={"batch_size": "32"})
    end = job.finish(spec)
    assert end["complete"] and job.iterations() == 8
    assert end["progress"]["batch_size"] == 8
    assert "Memory ran out: training goes on from 0 iterations with batch size 8." in job.log()
    more = {**spec, "iterations": 12}
    assert job.finish(more)["complete"]
    assert job.state("train")["command"][-4:] == ["-b", "8", "-i", "4"]
    assert job.log().count("Memory ran out") == 2, "from 32 to 16, to 8, and what did not fit is not tried again"


def test_not_even_one_face_fits(job: Trained) -> None:
    job.describe(command=[sys.executable, "-c", "print('RuntimeError: CUDA out of memory.'); raise SystemExit(1)"])
    end = job.finish(job.spec(8))
    assert not end["complete"]
    assert end["message"] == "There is not enough memory for this model: take a smaller one, or a larger host."
    assert job.log().count("Memory ran out") == 2, "from 4 to 2, and to 1"


@pytest.mark.parametrize(
    ("words", "size", "why"),
    [
        (["--memory", "60", "--full", "1000"], 32, "64 does not fit into memory"),
        (["--memory", "35", "--full", "1000"], 24, "64 does not fit into memory, and 32 only just"),
        (["--memory", "3"], 1, "2 does not fit into memory, and 2 only just"),
        (["--full", "32"], 32, "64 trains"),
        (["--full", "1000"], 64, "a side has no more than 100 faces"),
    ],
)
def test_auto_finds_the_batch_that_trains_most_faces(job: Trained, words: list[str], size: int, why: str) -> None:
    job.describe(backend="nvidia")
    # What is tried is a throw-away model: the words that make it slow are the command's own.
    spec = job.spec(3, training={"batch_size": "auto"})
    spec["arguments"] += ["--every", "0.03", *words]
    end = job.finish(spec)
    assert end["complete"] and job.iterations() == 3
    assert end["progress"]["batch_size"] == size if size > 1 else end["progress"]["batch_size"] in (1, 2)
    assert size == 1 or (f"Batch size {size}: " in job.log() and why in job.log())
    assert not (job.stage / "probe").exists()
    assert job.finish({**spec, "iterations": 5})["complete"]
    assert job.log().count("tried out on a throw-away model") == 1, "the answer is remembered"


def test_a_stop_reaches_the_search_for_a_batch_size(job: Trained) -> None:
    job.describe(backend="nvidia")
    spec = job.spec(3, training={"batch_size": "auto"})
    spec["arguments"] += ["--every", "0.5", "--full", "16"]
    job.start(spec)
    wait_until(lambda: (job.stage / "probe" / "model").exists())
    assert job.ask("stop")["changed"]
    assert not (job.stage / "probe").exists() and not (job.stage / "batch.json").exists()
    assert "was stopped" in job.status("train")["message"]


def test_without_a_gpu_auto_tries_nothing(job: Trained) -> None:
    assert job.finish(job.spec(3, training={"batch_size": "auto"}))["complete"]
    assert "Batch size 16: without a GPU" in job.log() and "throw-away" not in job.log()


def test_all_gpus_of_a_host_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: Trained) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert training.gpu_nodes(tmp_path) == 2
    runner = watchdog.Runner(job.folder, {}, 0, 600, lambda process: None)

    def tail(backend: str, *words: str) -> list[str]:
        spec = job.spec(9)
        made = training.Training(job.stage, job.folder, spec, {"backend": backend}, "", [*words], runner)
        made.batch_size = 4
        return made.tail()

    monkeypatch.setattr(training, "gpu_nodes", lambda: 2)
    assert tail("nvidia") == ["-b", "4", "-d", "-i", "9"]
    assert tail("nvidia", "-d") == tail("cpu") == ["-b", "4", "-i", "9"]


def test_what_ends_a_trial_from_outside_is_no_failure(job: Trained) -> None:
    job.describe(backend="nvidia", command=[sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    end = job.finish(job.spec(3, training={"batch_size": "auto"}))
    assert "was ended by SIGKILL" in end["message"] and job.state("train")["again"]


def test_a_trial_that_hangs_is_tried_once_more(job: Trained) -> None:
    job.describe(backend="nvidia")
    spec = job.spec(3, training={"batch_size": "auto"}, stuck_s=2)
    spec["arguments"] += ["--hang", "7", "--full", "16", "--every", "0.02"]
    assert job.finish(spec)["complete"]


def a_watch(folder: Path, total: int | None) -> watch.Watch:
    return watch.Watch(folder, (folder / "log.txt").open("ab", buffering=0), total, 0.0)


def test_what_went_well_later_is_no_reason_to_take_less_memory(tmp_path: Path) -> None:
    seen = a_watch(tmp_path, 100)
    seen.feed(b"OutOfMemoryError: out of resource: another kernel is taken.\nNo space left on device\n")
    assert seen.out_of_memory and seen.disk_full
    seen.feed(b"[12:00:00] [#00001] Loss A: 0.5, Loss B: 0.5\r")
    assert not seen.out_of_memory and not seen.disk_full


@pytest.mark.parametrize(("looks", "smaller"), [(1, True), (2, False)])
def test_only_a_kill_for_memory_of_late_halves_the_batch(
    job: Trained, monkeypatch: pytest.MonkeyPatch, looks: int, smaller: bool
) -> None:
    kills = [0]
    monkeypatch.setattr(training, "ended_for_memory", lambda: kills[0])
    monkeypatch.setattr(training, "KILLS_SECONDS", 0.0)
    job.stage.mkdir(parents=True)
    runner = watchdog.Runner(job.folder, {}, 0, 600, lambda process: None)
    made = training.Training(job.stage, job.folder, job.spec(9, training={"checkpoints": 0}), {}, "", [], runner)
    seen = a_watch(job.stage, 9)
    made.make_ready(seen)
    kills[0] = 1
    for _ in range(looks):
        made.tick(seen)
    assert made.tries_again(watchdog.Ending(-9, False, 0.0), seen) == smaller


def test_a_bar_within_a_training_is_not_its_progress(tmp_path: Path) -> None:
    seen = a_watch(tmp_path, 23)
    seen.feed(b"Caching A:  50%|# | 150/300 [00:01<00:01]\rCaching A: 100%|##| 300/300 [00:02<00:00]\r")
    assert not seen.advanced and (seen.progress["done"], seen.progress["total"]) == (0, 23)
    seen.feed(b"[12:00:00] [#00001] Loss A: 0.5, Loss B: 0.5\r")
    assert seen.advanced and (seen.progress["done"], seen.progress["total"]) == (1, 23)


# -- limits ----------------------------------------------------------------------------------------------


def test_training_is_complete_after_its_hours_and_goes_on_with_more(job: Trained) -> None:
    spec = job.spec(100_000, "--every", "0.02", training={"max_hours": 0.0005})
    first = job.finish(spec)
    done = job.iterations()
    assert first["complete"] and first["exit_code"] == 0 and first["ended"]["by"] == "hours" and 0 < done < 100_000
    assert not job.start(spec)["changed"]
    assert not job.start({**spec, "iterations": 200_000})["changed"], "more iterations are not more hours"
    more = job.spec(100_000, "--every", "0.02", training={"max_hours": (first["seconds"] + 3) / 3600})
    end = job.finish(more)
    assert end["reason"] == f"{done} of 100000 iterations are done" and end["complete"] and job.iterations() > done
    assert first["seconds"] + 3 <= end["seconds"], "they are counted over all runs"


def test_hours_count_though_supervisor_and_engine_were_killed(job: Trained) -> None:
    job.start(job.spec(100_000, "--every", "0.02"))
    wait_until(lambda: job.status("train")["progress"].get("seconds", 0) > 4 and job.iterations())
    for who in ("supervisor_pid", "engine_pid"):
        os.kill(job.state("train")[who], signal.SIGKILL)
    wait_until(lambda: not job.status("train")["alive"])
    end = job.finish(job.spec(100_000, "--every", "0.02", training={"max_hours": 0.0005}))
    assert end["ended"]["by"] == "hours" and end["seconds"] > 4


def test_training_is_complete_where_the_loss_stays(job: Trained) -> None:
    spec = job.spec(100_000, "--every", "0.004", "--flat", "10", training={"plateau_iterations": 20})
    end = job.finish(spec)
    done = job.iterations()
    assert end["complete"] and end["ended"]["by"] == "plateau" and 40 <= done < 1000
    assert "The loss of 20 iterations is as good as that of the 20 before." in job.log()
    assert not job.start(spec)["changed"]
    end = job.finish({**spec, "iterations": 100_001})
    assert end["complete"] and job.iterations() >= done + 40


def test_hours_that_are_over_before_the_start_need_no_engine(job: Trained) -> None:
    job.start(job.spec(100_000, "--every", "0.02"))
    wait_until(lambda: job.status("train")["progress"].get("seconds", 0) > 2 and job.iterations())
    job.ask("stop")
    end = job.finish(job.spec(100_000, training={"max_hours": 0.0003}))
    assert end["complete"] and end["ended"]["by"] == "hours" and job.log().count("the double begins") == 1


def later(*lines: str, after: tuple[str, ...] = ()) -> list[str]:
    """The double's command with lines of Python before and after it."""
    code = ["import sys, runpy, time", *lines, "sys.argv = sys.argv[1:]", "try:"]
    code += ["    runpy.run_path(sys.argv[0], run_name='__main__')", "except SystemExit: pass", *after]
    return [sys.executable, "-c", "\n".join(code), DOUBLE[1]]


def test_hours_do_not_end_an_engine_that_only_loads(job: Trained) -> None:
    job.describe(command=later("time.sleep(2.5)"))
    end = job.finish(job.spec(100_000, "--every", "0.02", training={"max_hours": 1 / 3600}))
    assert end["complete"] and end["ended"]["by"] == "hours" and job.iterations() > 0


def test_who_hangs_after_the_last_save_has_ended_well(job: Trained) -> None:
    job.describe(command=later(after=("time.sleep(3600)",)))
    end = job.finish(job.spec(100_000, "--every", "0.02", training={"max_hours": 1 / 3600}, stuck_s=20))
    assert end["complete"] and end["exit_code"] == 0 and end["ended"]["by"] == "hours" and not end["message"]


def test_a_model_that_is_begun_anew_has_all_its_hours(job: Trained) -> None:
    assert job.finish(job.spec(7, training={"checkpoints": 0}))["complete"]
    (job.stage / "state.json").write_text(json.dumps({**job.state("train"), "seconds": 5000.0}))
    os.truncate(job.model / "double.keras", 100)
    end = job.finish(job.spec(9, training={"checkpoints": 0, "max_hours": 1}))
    assert end["complete"] and not end["ended"] and job.iterations() == 9 and end["seconds"] < 60


# Says how often it was told to end, a second after the first time.
TOLD = """
import signal, time
told = []
signal.signal(signal.SIGINT, lambda *_: told.append(1))
print("ready", flush=True)
while not told:
    time.sleep(0.01)
print("told", flush=True)
end = time.monotonic() + 1
while time.monotonic() < end:
    time.sleep(0.01)
print(len(told), "times", flush=True)
"""


def test_who_saves_is_not_told_again(tmp_path: Path) -> None:
    class Impatient(watch.Reader):
        def _line(self, line: str) -> None:
            super()._line(line)
            if line in ("ready", "told"):
                runner._interrupt(signal.SIGTERM, None)

    with (tmp_path / "log").open("ab", buffering=0) as log, Path(os.devnull).open() as lock:
        runner = watchdog.Runner(tmp_path, {}, lock.fileno(), 600, lambda process: None)
        assert runner.run([sys.executable, "-c", TOLD], Impatient(log, trains=False)).code == 0
    assert (tmp_path / "log").read_text() == "ready\ntold\n1 times\n"


@pytest.mark.parametrize(
    ("last", "flat"), [([0.98] * 10, False), ([0.995] * 10, True), ([1.2] * 10, True), ([0.5] * 9, False)]
)
def test_a_plateau_is_less_than_one_per_cent(last: list[float], flat: bool) -> None:
    assert training.is_plateau([9.0, *[1.0] * 10, *last] if len(last) == 10 else [1.0] * 10 + last, 10) == flat


# -- versions --------------------------------------------------------------------------------------------


def test_versions_are_kept_tried_and_few(job: Trained) -> None:
    job.start(job.spec(10_000, "--every", "0.02", training={"checkpoints": 2}))
    wait_until(
        lambda: len(job.kept()) == 2 and 5 not in job.kept() and all("loads" in r for r in job.kept().values())
    )
    job.ask("stop")
    for number, record in job.kept().items():
        folder = job.stage / "checkpoints" / str(number)
        assert record["loads"] is True and record["files"] == ["double.keras", "double_state.json"]
        assert versions.damage(folder, record["files"]) is None and versions.iterations_of(folder) == number
    model = {path.stat().st_ino for path in job.model.iterdir()}
    assert not model & {path.stat().st_ino for path in job.stage.glob("checkpoints/*/*")}, "no hard links"


def poison(job: Trained) -> None:
    with zipfile.ZipFile(job.model / "double.keras", "w") as archive:
        archive.writestr("weights", "poison")


BREAKAGES: dict[str, Callable[[Trained], Any]] = {
    "truncated": lambda job: os.truncate(job.model / "double.keras", 100),
    "flipped": lambda job: flip(job.model / "double.keras"),
    "state": lambda job: (job.model / "double_state.json").write_text('{"itera'),
    "gone": lambda job: (job.model / "double.keras").unlink(),
    "state gone": lambda job: (job.model / "double_state.json").unlink(),
    "poisoned": poison,
}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_broken_model_goes_back_to_the_last_whole_version(job: Trained, breakage: str) -> None:
    done = job.trained_with_versions()
    newest = max(number for number, record in job.kept().items() if record.get("loads"))
    BREAKAGES[breakage](job)
    end = job.finish(job.spec(done + 20))
    assert end["complete"] and job.iterations() == done + 20
    assert "The model was broken" in job.log()
    back = int(job.log().rpartition("it is back at ")[2].split()[0])
    assert newest <= back <= done
    assert len(list((job.folder / "superseded").glob("train-broken-*/model"))) == 1
    rows = [int(row.split(",")[0]) for row in (job.stage / "losses.csv").read_text().splitlines()[1:]]
    assert rows == sorted(set(rows))


def test_a_complete_training_whose_model_broke_is_mended(job: Trained) -> None:
    done = job.trained_with_versions()
    spec = job.spec(done + 5)
    assert job.finish(spec)["complete"]
    os.truncate(job.model / "double.keras", 100)
    end = job.finish(spec)
    assert end["reason"] == "the model is broken (double.keras is cut short or damaged)"
    assert end["complete"] and job.iterations() == done + 5


def test_a_version_that_has_all_iterations_needs_no_engine(job: Trained) -> None:
    job.trained_with_versions()
    os.truncate(job.model / "double.keras", 100)
    end = job.finish(job.spec(1))
    assert end["complete"] and end["reason"].startswith("the model is broken") and job.iterations() > 1
    assert versions.damage(job.model) is None


def test_without_a_whole_version_a_broken_model_is_kept_and_begun_anew(job: Trained) -> None:
    assert job.finish(job.spec(7, training={"checkpoints": 0}))["complete"]
    os.truncate(job.model / "double.keras", 100)
    end = job.finish(job.spec(9))
    assert end["complete"] and job.iterations() == 9
    assert "no version of it is whole: it is begun anew" in job.log()
    kept = job.folder / "superseded" / "train-broken-1" / "model" / "double_state.json"
    assert json.loads(kept.read_text())["iterations"] == 7


def test_faceswaps_own_backup_is_the_last_resort(job: Trained) -> None:
    assert job.finish(job.spec(7, training={"checkpoints": 0}))["complete"]
    for path in list(job.model.iterdir()):
        path.with_name(path.name + ".bk").write_bytes(path.read_bytes())
    os.truncate(job.model / "double.keras", 100)
    assert job.finish(job.spec(9))["complete"]
    assert "it is back at 7 iterations" in job.log()


def test_an_engine_that_fails_for_another_reason_leaves_the_model_alone(job: Trained) -> None:
    done = job.trained_with_versions()
    job.describe(command=[sys.executable, "-c", "raise SystemExit('no such thing')"])
    end = job.finish(job.spec(done + 5))
    assert not end["complete"] and job.iterations() == done
    assert not (job.folder / "superseded").exists()


# Runs one step of versions.py and dies at the N-th call of what changes the disk.
KILLED = """
import os, shutil, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import versions
left = [int(sys.argv[2])]
def dying(function):
    def call(*words, **more):
        if left[0] == 0:
            os._exit(9)
        left[0] -= 1
        return function(*words, **more)
    return call
for owner, name in ((Path, "replace"), (Path, "mkdir"), (shutil, "rmtree"), (os, "fsync"),
                    (versions, "write_json"), (versions, "copy")):
    setattr(owner, name, dying(getattr(owner, name)))
place = Path(sys.argv[4])
made = versions.Versions(place / "stage", place / "model", 1, [], dict(os.environ))
if sys.argv[3] == "make":
    made._work(versions.iterations_of(place / "model"))
else:
    made.clear_leftovers()
    made.put_back(place / "superseded")
"""


def model_of(folder: Path, iterations: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "double.keras", "w") as archive:
        archive.writestr("weights", f"{iterations} " * 100)
    (folder / "double_state.json").write_text(json.dumps({"iterations": iterations}))


def killed_at(step: int, verb: str, place: Path) -> bool:
    """Tell whether it was killed, and not done before."""
    words = [sys.executable, "-c", KILLED, str(PROGRAMS), str(step), verb, str(place)]
    done = subprocess.run(words, timeout=60, capture_output=True, text=True)
    assert done.returncode in (0, 9), done.stderr
    return done.returncode == 9


def test_a_kill_at_any_step_of_making_a_version_leaves_whole_ones(tmp_path: Path) -> None:
    step, killed = 0, True
    while killed:
        place = tmp_path / str(step)
        model_of(place / "model", 20)
        made = versions.Versions(place / "stage", place / "model", 1, [], {})
        made._work(20)
        model_of(place / "model", 30)
        killed = killed_at(step, "make", place)
        made.clear_leftovers()
        assert made.kept(), step
        for version in made.kept():
            assert versions.damage(version, ["double.keras", "double_state.json"]) is None, step
            assert versions.iterations_of(version) == int(version.name) in (20, 30), step
        step += 1
    assert step > 8 and [path.name for path in made.kept()] == ["30"]


@pytest.mark.parametrize("source", ["version", "backup"])
def test_a_kill_at_any_step_of_putting_one_back_loses_nothing(tmp_path: Path, source: str) -> None:
    step, killed = 0, True
    while killed:
        place = tmp_path / str(step)
        model_of(place / "model", 20)
        made = versions.Versions(place / "stage", place / "model", 3, [], {})
        if source == "version":
            made._work(20)
        else:
            for path in list((place / "model").iterdir()):
                path.with_name(path.name + ".bk").write_bytes(path.read_bytes())
        model_of(place / "model", 30)
        os.truncate(place / "model" / "double.keras", 50)
        killed = killed_at(step, "put back", place)
        # The next start:
        made.clear_leftovers()
        if versions.damage(place / "model", made.known_files()):
            assert made.put_back(place / "superseded") == 20, step
        assert versions.damage(place / "model", ["double.keras", "double_state.json"]) is None, step
        assert versions.iterations_of(place / "model") == 20, step
        assert [version.name for version in made.kept()] == (["20"] if source == "version" else []), step
        (broken,) = (place / "superseded").glob("*/model/double_state.json")
        assert json.loads(broken.read_text())["iterations"] == 30, step
        step += 1
    assert step > 8


def test_no_room_for_versions_is_told_once_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_of(tmp_path / "model", 20)
    made = versions.Versions(tmp_path / "stage", tmp_path / "model", 3, [], {})
    monkeypatch.setattr(versions, "SPARE_BYTES", 2**60)
    made._work(20)
    made._work(20)
    assert made.kept() == []
    assert made.said == ["There is no room for versions of the model: training goes on without new ones."]


# What the check does, and what of that may be held against the model.
CHECKS = {
    "loads": ("", True),
    "refused": ("print('It is no model.', file=sys.stderr); sys.exit(65)", False),
    "without memory": ("raise MemoryError", None),
    "killed": ("import os; os.kill(os.getpid(), 9)", None),
}


def versions_of(place: Path, code: str = "", **more: Any) -> versions.Versions:
    check = [sys.executable, "-c", f"import sys; {code}"]
    return versions.Versions(place / "stage", place / "model", 3, check, dict(os.environ), **more)


@pytest.mark.parametrize("what", CHECKS)
def test_only_a_verdict_condemns_a_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr(versions, "available_memory", lambda: 2**62)
    model_of(tmp_path / "model", 20)
    code, loads = CHECKS[what]
    versions_of(tmp_path, code)._work(20)
    record = records.read_json(tmp_path / "stage" / "checkpoints" / "20" / "version.json")
    assert record["loads"] is loads
    assert record["reason"] == ("It is no model" if loads is False else None)
    assert versions_of(tmp_path, code).put_back(tmp_path / "old") == (None if loads is False else 20)
    assert versions_of(tmp_path).put_back(tmp_path / "old") == 20, "it is asked again before all is begun anew"


def test_a_stop_waits_for_no_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "available_memory", lambda: 2**62)
    model_of(tmp_path / "model", 20)
    hangs = f"open({str(tmp_path / 'begun')!r}, 'w'); import time; time.sleep(60)"
    made = versions_of(tmp_path, hangs)
    made.look()
    wait_until((tmp_path / "begun").exists)
    began = time.monotonic()
    made.close()
    assert versions_of(tmp_path, hangs, stopped=lambda: True).loads(tmp_path / "model") == (None, None)
    assert time.monotonic() - began < 30
    assert [version.name for version in made.kept()] == ["20"]


def test_a_stop_leaves_off_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = versions_of(tmp_path, stopped=lambda: True)
    for done in (20, 30, 40):
        model_of(tmp_path / "model", done)
        made._work(done)
    assert made.kept() == [] and made.said == []
    monkeypatch.setattr(versions, "FICLONE", 0)  # no file system shares blocks by that
    (tmp_path / "large").write_bytes(bytes(3 << 20))
    looks = iter((False, True))
    versions.copy(tmp_path / "large", tmp_path / "copy", lambda: next(looks))
    assert (tmp_path / "copy").stat().st_size == 1 << 20


# Is refused unless the kernel would end it first, which its parent sees to once it runs.
OWN_SCORE = """
import time
end = time.monotonic() + 10
while open("/proc/self/oom_score_adj").read().strip() != "1000":
    if time.monotonic() > end:
        sys.exit(65)
    time.sleep(0.01)
"""


def test_the_check_is_ended_before_the_training_where_memory_runs_out(tmp_path: Path) -> None:
    assert versions_of(tmp_path, OWN_SCORE).loads(tmp_path)[0] is True


def test_a_save_under_way_is_no_broken_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is in the middle of a save when it is copied, and done when the copy is looked at."""
    made = versions_of(tmp_path)

    def engine_goes_on(folder: Path) -> str:
        model_of(tmp_path / "model", done)
        return "it is cut short"

    monkeypatch.setattr(versions, "damage", engine_goes_on)
    for done in (20, 30, 30, 40, 50):
        model_of(tmp_path / "model", done)
        made._work(done)
    assert made.kept() == []
    (said,) = made.said
    assert "saves again before a version of the model is copied" in said


def test_a_training_that_ends_has_a_version_of_its_end(job: Trained) -> None:
    assert job.finish(job.spec(7))["complete"]
    assert 7 in job.kept()


def test_what_strays_into_a_model_is_no_part_of_it(tmp_path: Path) -> None:
    model_of(tmp_path / "model", 20)
    stray = tmp_path / "model" / "notes.txt"
    stray.touch()
    made = versions_of(tmp_path)
    made._work(20)
    stray.unlink()
    assert made.known_files() == ["double.keras", "double_state.json"]
    record = tmp_path / "stage" / "checkpoints" / "20" / "version.json"
    records.write_json(record, {**records.read_json(record), "files": [*made.known_files(), "notes.txt"]})
    assert versions.damage(tmp_path / "model", made.known_files()) is None
    assert made.put_back(tmp_path / "old") == 20


def test_what_does_not_unpack_is_damaged(tmp_path: Path) -> None:
    model_of(tmp_path, 20)
    path = tmp_path / "double.keras"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("optimizer.pt", b"abcabcabc" * 30_000, compress_type=zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    begin = content.find(b"optimizer.pt") + len("optimizer.pt")
    content[begin : begin + 50] = b"\xff" * 50
    path.write_bytes(content)
    assert versions.damage(tmp_path) == "double.keras is cut short or damaged"


# -- settings --------------------------------------------------------------------------------------------


def test_settings_are_written_for_the_engine_which_may_add_to_them(job: Trained) -> None:
    fixed, way = {"global": {"coverage": 87.5}}, {"global": {"mixed_precision": True}}
    spec = job.spec(3, settings=fixed, neutral_settings=way)
    end = job.finish(spec)
    assert end["complete"] and "-C" in end["command"]
    text = (job.folder / "train.ini").read_text()
    assert "coverage = 87.5\nmixed_precision = True\n" in text and "[trainer.loader]" in text and "added" in text
    assert not job.start(spec)["changed"]
    other_way = {**spec, "neutral_settings": {"global": {"mixed_precision": False}}}
    assert not job.start(other_way)["changed"]
    assert job.finish({**other_way, "iterations": 4})["complete"]
    assert "mixed_precision = False" in (job.folder / "train.ini").read_text()


def test_other_settings_begin_another_model_and_the_first_comes_back_with_its_versions(job: Trained) -> None:
    first = job.spec(10_000, "--every", "0.02", settings={"global": {"coverage": 87.5}})
    job.start(first)
    wait_until(lambda: job.kept())
    job.ask("stop")
    done, kept = job.iterations(), set(job.kept())
    end = job.finish(job.spec(3, settings={"global": {"coverage": 75.0}}))
    assert end["reason"] == "the settings changed" and job.iterations() == 3
    assert not kept & set(job.kept())
    assert job.finish({**first, "iterations": done + 1})["complete"]
    assert job.iterations() == done + 1 and kept <= set(job.kept())


@pytest.mark.parametrize(("asked", "cores", "taken"), [(None, 1, 1), (None, 16, 4), (8, 2, 2), (0, 4, 1), (3, 4, 3)])
def test_the_loader_has_a_process_and_no_more_than_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int | None, cores: int, taken: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    settings = {} if asked is None else {"trainer.loader": {"num_processes": asked}}
    training.write_settings(tmp_path / "train.ini", settings)
    assert f"num_processes = {taken}\n" in (tmp_path / "train.ini").read_text()


# -- slow and stuck --------------------------------------------------------------------------------------


def nobody_left(session: int) -> bool:
    return not watchdog.members(session)


def test_what_hangs_after_an_error_is_ended_and_told_by_it(job: Trained) -> None:
    """As Faceswap does after a failed download. It is deaf to SIGINT and SIGTERM, and not tried again."""
    began = time.monotonic()
    end = job.finish(job.convert(arguments=["hang"], stuck_s=20))
    assert not end["complete"] and end["exit_code"] > 0
    assert end["message"] == "Failed to download model. Exiting."
    assert 3 <= time.monotonic() - began < 15
    assert nobody_left(job.state("convert")["engine_pid"])
    log = (job.folder / "stages" / "convert" / "log.txt").read_text()
    assert log.count("the double begins") == 1


def test_what_hangs_without_a_word_is_started_once_more(job: Trained) -> None:
    end = job.finish(job.convert(arguments=["doze", "-o", "out"], stuck_s=3))
    assert end["complete"]
    assert "it is started once more" in (job.folder / "stages" / "convert" / "log.txt").read_text()


def test_what_hangs_again_has_failed(job: Trained) -> None:
    job.describe(command=["sleep"])
    end = job.finish(job.convert(arguments=["600"], stuck_s=2))
    assert not end["complete"] and end["exit_code"] > 0
    assert "did nothing for" in end["message"] and "again after a new start" in end["message"]
    assert (job.folder / "stages" / "convert" / "log.txt").read_text().count(": it is ended") == 2


def test_a_training_that_hangs_goes_on_from_its_save(job: Trained) -> None:
    end = job.finish(job.spec(20, "--hang", "8", "--every", "0.05", stuck_s=3))
    assert end["complete"] and job.iterations() == 20
    assert "did nothing for 3 s: it is ended" in job.log()


def test_a_training_that_went_on_may_hang_again(job: Trained) -> None:
    end = job.finish(job.spec(20, "--hang", "8", "--hang", "13", "--every", "0.02", stuck_s=2))
    assert end["complete"] and job.iterations() == 20
    assert job.log().count("it is started once more") == 2


def test_a_pause_of_the_whole_host_is_not_held_against_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(watchdog, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(watchdog, "activity", lambda session: watchdog.Activity({1: 5}, {1: 5}))
    dog = watchdog.Watchdog(1, every=10.0)
    told = []
    for now[0] in (5.0, 10.0, 1000.0, 1001.0, 1010.0, 1020.0):
        told.append(dog.idle())
    assert told == [5.0, 10.0, 10.0, 11.0, 20.0, 30.0]


def test_slow_is_not_stuck(job: Trained) -> None:
    end = job.finish(job.spec(3, "--every", "4", "--full", "4", "--burn", save=None, stuck_s=2))
    assert end["complete"] and job.iterations() == 3
    assert "it is ended" not in job.log()


@pytest.mark.parametrize(
    ("ticks", "moved", "others", "busy"),
    [
        (2, 0, {}, False),  # a Faceswap that hangs, in 10 s
        (4, 100, {}, False),
        (20, 0, {}, True),
        (0, 8192, {}, True),
        (0, 0, {9: 0}, True),
    ],
)
def test_what_a_busy_session_does(ticks: int, moved: int, others: dict[int, int], busy: bool) -> None:
    before = watchdog.Activity({1: 500, 2: 10}, {1: 10_000, 2: 0})
    now = watchdog.Activity({1: 500 + ticks, 2: 10, **others}, {1: 10_000 + moved, 2: 0, **others})
    assert watchdog.is_busy(before, now, 10.0) == busy
