"""What a training needs beyond a command: its limits, its batch size, its versions, its settings, all GPUs.

The stage's `training` says what is wanted: `batch_size` (a number or `auto`), `max_hours`, `plateau_iterations` and
`checkpoints`. None of it makes a new model: a training goes on with other limits.

Standard library only, Python 3.9 or newer.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from records import Json, StageError, read_json, write_json
from versions import Versions, available_memory, damage, iterations_of
from watch import Reader, Watch
from watchdog import FROM_OUTSIDE, Ending, Runner

DEFAULT_BATCH = 16  # Faceswap's own
GROWTH = 1.05  # a batch twice as large must train so much more faces a second to be worth it
MARGIN = 1.25  # more than the batch must fit, so that it does not sit at the edge of memory
PROBE_ITERATIONS = 20
PROBE_WARM = 5  # the first ones pick algorithms, and save
PLATEAU_SHARE = 0.01
KILLS_SECONDS = 10.0  # a command that the kernel ends for its memory is gone within this time


def enough(spec: Json, state: Json) -> str | None:
    """Return why a training that has not all its iterations is complete nevertheless, None if it is not.

    It goes on when a later run asks for more: hours, iterations, or another plateau.
    """
    ended, wanted = state.get("ended"), spec.get("training", {})
    if not ended or not state.get("complete") or not spec.get("iterations"):
        return None
    if ended["by"] == "hours":
        hours = float(wanted.get("max_hours") or 0)
        goes_on = not hours or hours * 3600 > float(state.get("seconds", 0)) + 1
    else:
        same = int(wanted.get("plateau_iterations") or 0) == ended["plateau_iterations"]
        goes_on = not same or spec["iterations"] > ended["iterations"]
    return None if goes_on else str(ended["reason"])


def is_plateau(losses: list[float], span: int) -> bool:
    """Tell whether the mean loss of the last `span` iterations is not 1 % below that of the `span` before them."""
    if span < 1 or len(losses) < 2 * span:
        return False
    before, last = sum(losses[-2 * span : -span]), sum(losses[-span:])
    return last > before * (1 - PLATEAU_SHARE)


def damaged(stage: Path, model: Path) -> str | None:
    """Return what a quick look finds broken in a model that was trained before, None if nothing."""
    versions = Versions(stage, model, 0, [], {})
    return damage(model, versions.known_files(), thorough=False)


def write_settings(path: Path, settings: Json) -> None:
    """Write the ini that the engine's `-C` names; anew each time, as the engine adds to it what is missing.

    A training's loader needs a process of its own, and no more than there are cores: for more, Faceswap takes one
    less than there are, and none crashes it.
    """
    sections = {name: dict(options) for name, options in settings.items()}
    if path.name == "train.ini":
        loader = sections.setdefault("trainer.loader", {})
        loader["num_processes"] = max(1, min(int(loader.get("num_processes", 4)), os.cpu_count() or 1))
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    parser.read_dict(sections)
    new = path.with_name(path.name + ".new")
    with new.open("w", encoding="utf-8") as stream:
        parser.write(stream)
    new.replace(path)


def gpu_nodes(dev: Path = Path("/dev")) -> int:
    """Return how many NVIDIA GPUs this host shows."""
    return sum(bool(re.fullmatch(r"nvidia\d+", path.name)) for path in dev.glob("nvidia*"))


def gpu_names() -> str:
    """Return what tells these GPUs from others, empty without any."""
    words = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30).stdout
    return ""


def ended_for_memory() -> int:
    """Return how many processes the kernel has ended because memory ran out, since the boot."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


class CutOffError(Exception):
    """What was tried was ended from outside; the training itself would have been."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending)
        self.ending = ending


class Probe(Reader):
    """Measures how fast a few iterations go."""

    def __init__(self, log: Any) -> None:
        super().__init__(log, trains=True)
        self._points: list[tuple[float, int]] = []

    def advance(self, done: int, total: int | None, losses: tuple[float, float] | None) -> None:
        """Take note of when an iteration ended."""
        if losses:
            self._points.append((time.monotonic(), done))

    def rate(self) -> float | None:
        """Return iterations per second once it is warm, None if there were too few."""
        points = self._points[PROBE_WARM:]
        if len(points) < 2 or points[-1][0] <= points[0][0]:
            return None
        return (points[-1][1] - points[0][1]) / (points[-1][0] - points[0][0])


class Training:
    """A stage that trains: what is done before, during and after its command.

    `arguments` are the command's without batch size and iterations. `digest` tells its inputs, settings and engine.
    """

    def __init__(
        self, folder: Path, job: Path, spec: Json, engine: Json, digest: str, arguments: list[str], runner: Runner
    ) -> None:
        self.model = job / spec["model"]
        self.ended: Json | None = None
        self.ended_at = 0  # the iterations that it had when it was to end
        self.batch_size: int | None = None
        self._folder, self._job, self._spec, self._engine, self._digest = folder, job, spec, engine, digest
        self._wanted: Json = spec.get("training", {})
        self._arguments, self._runner = arguments, runner
        keep, check = int(self._wanted.get("checkpoints", 0)), list(engine.get("check_model") or [])
        self._versions = Versions(folder, self.model, keep, check, runner.environment, lambda: runner.stopped)
        self._restored = 0
        self._kills = (0, 0)  # of the kernel for want of memory, as counted at the last two looks
        self._looked = 0.0
        self._base = 0

    # -- before ------------------------------------------------------------------------------------------

    def make_ready(self, watch: Watch) -> None:
        """Have a model that is whole, and a batch size. CutOffError where that was cut off."""
        self._versions.clear_leftovers()
        broken = damage(self.model, self._versions.known_files())
        if broken:
            self._put_back(broken, watch)
        if self._runner.stopped:
            return
        if self.batch_size is None and self._wanted.get("batch_size"):
            self.batch_size = self._remembered() or self._choose(watch)
        self._base = iterations_of(self.model)
        self._kills, self._looked = (ended_for_memory(),) * 2, time.monotonic()
        watch.go_on_from(self._base)
        if self.batch_size:
            watch.save(batch_size=self.batch_size)

    def _put_back(self, broken: str, watch: Watch) -> None:
        superseded = self._job / "superseded"
        done = self._versions.put_back(superseded)
        if done is None and self._runner.stopped:
            return  # the next run finds out
        if done is None:
            self._versions.set_aside(superseded, versions=True)
            watch.forget_seconds()
            watch.tell(f"The model was broken ({broken}), and no version of it is whole: it is begun anew.")
        else:
            watch.tell(f"The model was broken ({broken}): it is back at {done} iterations.")

    def left(self) -> int:
        """Return how many iterations are still to be done."""
        return int(self._spec["iterations"]) - iterations_of(self.model)

    def is_done(self, watch: Watch) -> bool:
        """Tell whether nothing is left to do: not an iteration, or no time for one, as the model has some."""
        return self.left() < 1 or (self._base > 0 and self._is_to_end(watch))

    def went_on(self) -> bool:
        """Tell whether the last command saved more than it began with."""
        return iterations_of(self.model) > self._base

    def tail(self) -> list[str]:
        """Return the arguments that depend on where the training stands, and on the host."""
        return [*self._sized(self.batch_size), "-i", str(self.left())]

    def _sized(self, size: int | None) -> list[str]:
        words = ["-b", str(size)] if size else []
        several = self._engine.get("backend") == "nvidia" and gpu_nodes() > 1
        return [*words, "-d"] if several and not {"-d", "--distributed"} & set(self._arguments) else words

    # -- the batch size ----------------------------------------------------------------------------------

    def _key(self) -> Json:
        way = self._spec.get("neutral_settings", {})  # numbers of 16 bits take less room
        wanted = str(self._wanted["batch_size"])
        return {"digest": self._digest, "settings": way, "wanted": wanted, "gpu": gpu_names()}

    def _remembered(self) -> int | None:
        record = read_json(self._folder / "batch.json")
        return int(record["batch_size"]) if record.get("for") == self._key() else None

    def _remember(self, size: int, why: str) -> int:
        write_json(self._folder / "batch.json", {"for": self._key(), "batch_size": size, "why": why})
        return size

    def _choose(self, watch: Watch) -> int:
        wanted = str(self._wanted["batch_size"])
        if wanted != "auto":
            return int(wanted)
        most = self._faces()
        if self._engine.get("backend") != "nvidia":
            # Nothing to gain by more on a CPU, and less only where memory is short: Faceswap's smallest takes 3 GB.
            size = min(DEFAULT_BATCH if available_memory() > 4 * 2**30 else DEFAULT_BATCH // 4, most)
            watch.tell(f"Batch size {size}: without a GPU, a larger one is not faster.")
            return self._remember(size, "no GPU")
        watch.tell("The batch size is tried out on a throw-away model.")
        size, why = self._search(min(DEFAULT_BATCH, most), most, watch)
        if self._runner.stopped:
            return size
        watch.tell(f"Batch size {size}: {why}.")
        return self._remember(size, why)

    def _faces(self) -> int:
        """Return the number of faces of the side that has fewer: an epoch holds at least one batch."""
        folders = [self._job / path for path in self._spec["inputs"] if (self._job / path).is_dir()]
        return max(1, min((sum(1 for _ in folder.iterdir()) for folder in folders), default=1024))

    def _search(self, size: int, most: int, watch: Watch) -> tuple[int, str]:
        """Return the batch size to take, and why."""
        rate = self._try(size, watch)
        while rate is None and size > 1 and not self._runner.stopped:
            size //= 2
            rate = self._try(size, watch)
        while rate and 2 * size <= most and not self._runner.stopped:
            more = self._try(2 * size, watch)
            if more is None:
                if self._try(min(most, int(MARGIN * size) + 1), watch) is None:
                    return max(1, size * 3 // 4), f"{2 * size} does not fit into memory, and {size} only just"
                return size, f"{2 * size} does not fit into memory"
            if more < rate * GROWTH:
                return size, f"{2 * size} trains {more:.0f} faces a second and {size} as good as that, {rate:.0f}"
            size, rate = 2 * size, more
        if not rate:
            return size, "no larger one could be tried"
        return size, f"it trains {rate:.0f} faces a second, and a side has no more than {most} faces"

    def _try(self, size: int, watch: Watch) -> float | None:
        """Return the faces per second with a batch size, None if it does not fit into memory.

        StageError where the engine fails for another reason: the training itself would fail as well. CutOffError
        where it was ended from outside.
        """
        place = self._folder / "probe"
        shutil.rmtree(place, ignore_errors=True)
        words, before = list(self._arguments), ended_for_memory()
        words[words.index(str(self._spec["model"]))] = str((place / "model").relative_to(self._job))
        words += ["-s", "1000000", *self._sized(size), "-i", str(PROBE_ITERATIONS)]
        for _ in range(2):
            probe = Probe(watch.log)
            place.mkdir()
            try:
                ending = self._runner.run(words, probe)
            finally:
                shutil.rmtree(place, ignore_errors=True)
            if self._runner.stopped:
                return None
            if not ending.stuck or probe.failing:
                break  # only what hung by itself is tried again
        if ending.code or ending.stuck:
            if probe.out_of_memory or (ending.code == -9 and ended_for_memory() > before):
                watch.tell(f"Batch size {size} does not fit into memory.")
                return None
            if -ending.code in FROM_OUTSIDE and not ending.stuck:
                raise CutOffError(ending)
            raise StageError(probe.cause() or f"The engine failed when batch size {size} was tried: see its log.")
        rate = 2 * size * (probe.rate() or 0.0)
        watch.tell(f"Batch size {size} trains {rate:.0f} faces a second.")
        return rate

    # -- during ------------------------------------------------------------------------------------------

    def tick(self, watch: Watch) -> bool:
        """Keep versions; tell whether the training is to end before its last iteration."""
        self._versions.look()
        self._tell(watch)
        if time.monotonic() - self._looked >= KILLS_SECONDS:
            self._kills, self._looked = (self._kills[1], ended_for_memory()), time.monotonic()
        return watch.advanced and self._is_to_end(watch)  # before, there is nothing to save, and nobody who would

    def _is_to_end(self, watch: Watch) -> bool:
        hours, span = float(self._wanted.get("max_hours") or 0), int(self._wanted.get("plateau_iterations") or 0)
        if hours and watch.seconds() >= hours * 3600:
            self._end(watch, "hours", f"It has trained for {hours:g} h, which is its limit.")
        elif is_plateau(watch.history, span):
            self._end(watch, "plateau", f"The loss of {span} iterations is as good as that of the {span} before.")
        return self.ended is not None

    def _end(self, watch: Watch, by: str, reason: str) -> None:
        self.ended = {"by": by, "reason": reason, "iterations": self._spec["iterations"]}
        self.ended_at = int(watch.progress["done"])
        self.ended["plateau_iterations"] = int(self._wanted.get("plateau_iterations") or 0)
        watch.tell(reason)

    def _tell(self, watch: Watch) -> None:
        while self._versions.said:
            watch.tell(self._versions.said.pop(0))

    # -- after -------------------------------------------------------------------------------------------

    def tries_again(self, ending: Ending, watch: Watch) -> bool:
        """Tell whether the command is to run again: with a smaller batch, or with an older version of the model."""
        if not ending.code and not ending.stuck:
            return False
        short = watch.out_of_memory or (ending.code == -9 and ended_for_memory() > self._kills[0])
        if short and self.batch_size and self.batch_size > 1:
            self.batch_size = self._remember(self.batch_size // 2, "memory ran out")
            saved = iterations_of(self.model)
            watch.tell(f"Memory ran out: training goes on from {saved} iterations with batch size {self.batch_size}.")
            return True
        if short:
            watch.last_error = "There is not enough memory for this model: take a smaller one, or a larger host."
            return False
        if self._base and not watch.advanced and self._restored < 2:
            loads, reason = self._versions.loads(self.model)
            if loads is False:
                self._restored += 1
                self._put_back(str(reason), watch)
                return True
        return False

    def close(self, watch: Watch) -> None:
        """Let go of what is under way."""
        self._versions.close()
        self._tell(watch)
