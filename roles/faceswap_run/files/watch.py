"""Reads what an engine's command prints: progress, losses, errors, and whether disk or memory ran out.

Standard library only, Python 3.9 or newer.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from records import Json, is_full, write_json

# Faceswap's own forms: `[14:19:31] [#00001] Loss A: 0.46971, Loss B: 0.44091`; tqdm's `45/100 [00:02<00:03`.
TRAINING = re.compile(r"\[#(\d+)\] Loss A: ([\d.]+), Loss B: ([\d.]+)")
COUNTING = re.compile(r"(\d+)/(\d+) \[")
# Its log's form, and argparse's.
ERROR = re.compile(r"^(?:\S+ \S+ (?:ERROR|CRITICAL)\s+|\S+(?: \w+)?: error: )(.*)$")
EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception)\b.*")
CRASH = re.compile(r"unexpected crash|Got Exception|Error caught! Exiting|Caught exception in thread")  # and no cause
FULL = re.compile(r"No space left on device|Disk quota exceeded")
# Torch on a GPU and on a CPU, Faceswap's own words for it, cuBLAS and cuDNN, JAX, NumPy, Python.
MEMORY = re.compile(
    r"out of memory|OutOfMemoryError|enough GPU memory|can't allocate memory|Cannot allocate memory|_ALLOC_FAILED"
    r"|RESOURCE_EXHAUSTED|Unable to allocate|^MemoryError",
    re.IGNORECASE,
)

LOG_PROGRESS_SECONDS = 30.0
RATE_WINDOW_SECONDS = 20.0
GPU_SECONDS = 10.0
GPU_QUERY = "utilization.gpu,memory.used,memory.total"
LOSSES_HEAD = "iteration,loss_a,loss_b\n"


class Reader:
    """Takes a command's output apart, lines into a log. A subclass says what progress is good for.

    Progress is what is told of the iterations if it `trains`: the bars in between count something else.
    """

    def __init__(self, log: Any, trains: bool) -> None:
        self.log = log
        self._trains = trains
        self.begin()

    def begin(self) -> None:
        """Forget what an earlier command printed."""
        self.last_error: str | None = None
        self.exception: str | None = None
        self.crashed = False
        self.failing = False  # an error was told, and nothing went on after it
        self.advanced = False  # the work itself has begun
        self.disk_full = False
        self.out_of_memory = False
        self._rest = b""
        self._done = 0
        self._in_error = False
        self._logged = 0.0

    def feed(self, block: bytes) -> None:
        """Take the next block of output, the empty one at its end. Lines end in a newline or a carriage return."""
        *lines, self._rest = re.split(rb"[\r\n]", self._rest + block)
        for line in lines if block else [*lines, self._rest]:
            self._line(line.decode("utf-8", "replace"))

    def cause(self) -> str | None:
        """Return what the command itself said of its end: its last error, or the exception that it crashed by."""
        if self.crashed and self.exception:
            return f"The engine crashed ({self.exception})."
        return self.last_error

    def advance(self, done: int, total: int | None, losses: tuple[float, float] | None) -> None:
        """Take note of progress: iterations with their losses, or `done` of `total` of whatever is counted."""

    def _line(self, line: str) -> None:
        line = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line).rstrip()
        training, counting = TRAINING.search(line), COUNTING.search(line)
        match = training or (None if self._trains else counting)
        if match:
            done = int(match[1])
            if done > self._done:  # a bar that is only drawn again does not
                self.advanced = True
                self.failing = self.disk_full = self.out_of_memory = False
            self._done = done
            if training:
                self.advance(done, None, (float(training[2]), float(training[3])))
            else:
                self.advance(done, int(match[2]), None)
        if training or counting:
            now = time.monotonic()
            if now - self._logged >= LOG_PROGRESS_SECONDS:
                self._logged = now
                self.write(line)
        elif line:
            self.write(line)
            self.disk_full = self.disk_full or bool(FULL.search(line))
            self.out_of_memory = self.out_of_memory or bool(MEMORY.search(line))
            self._error(ERROR.match(line), EXCEPTION.match(line))

    def _error(self, error: re.Match[str] | None, exception: re.Match[str] | None) -> None:
        if error and CRASH.search(error[1]):
            self.crashed = self.crashed or not error[1].startswith("Error caught")
        elif error and not self._in_error:
            self.last_error = error[1]  # the first line of several: cause comes before advice
        self._in_error = bool(error)
        if exception:
            self.exception = exception[0]
        self.failing = self.failing or bool(error or exception)

    def note(self, text: str) -> None:
        """Add a line of our own to the log, in the form of Faceswap's."""
        self.write(f"{time.strftime('%m/%d/%Y %H:%M:%S')} INFO     {text}")

    def write(self, line: str) -> None:
        """Add a line to the log."""
        with self.as_room_allows():
            self.log.write(f"{line}\n".encode())

    @contextlib.contextmanager
    def as_room_allows(self) -> Iterator[None]:
        """Go on without a record that the disk has no room for: the engine may still save its work."""
        try:
            yield
        except OSError as error:
            if not is_full(error):
                raise
            self.disk_full = True


class Watch(Reader):
    """Writes a stage's progress into progress.json and, for a training, losses.csv.

    `total` are the iterations wanted, if any are counted, and `spent` the seconds of the stage's earlier runs.
    """

    def __init__(self, folder: Path, log: Any, total: int | None, spent: float) -> None:
        self._path = folder / "progress.json"
        self._losses = folder / "losses.csv"
        self.spent, self._since = spent, time.monotonic()
        self.progress: Json = {"stage": folder.name, "state": "running", "total": total, "batch_size": None}
        self.history: list[float] = []  # the summed losses of this command's iterations
        super().__init__(log, trains=total is not None)
        self.go_on_from(None)

    def seconds(self) -> float:
        """Return the seconds of all runs of the stage."""
        return self.spent + time.monotonic() - self._since

    def forget_seconds(self) -> None:
        """Count the stage's seconds anew: what was made in those before is gone."""
        self.spent, self._since = 0.0, time.monotonic()

    def go_on_from(self, base: int | None) -> None:
        """Begin to read another command, which goes on from iteration `base` if it counts them."""
        self.begin()
        self.history.clear()
        self._points: list[tuple[float, int]] = []
        self._written = 0.0
        self.progress.update(done=base or 0, rate=None, loss_a=None, loss_b=None, eta=None)
        if base is not None:
            with self.as_room_allows():
                self._keep_losses(base)
        self.save()

    def _keep_losses(self, base: int) -> None:
        """Have losses.csv end where the model stands: it may have gone back to an earlier save."""
        rows = self._losses.read_text(encoding="utf-8").splitlines(keepends=True) if self._losses.exists() else []
        kept = [row for row in rows[1:] if row.split(",")[0].isdigit() and int(row.split(",")[0]) <= base]
        if [LOSSES_HEAD, *kept] != rows:
            new = self._losses.with_name("losses.csv.tmp")
            new.write_text("".join([LOSSES_HEAD, *kept]), encoding="utf-8")
            new.replace(self._losses)

    def advance(self, done: int, total: int | None, losses: tuple[float, float] | None) -> None:
        """Take note of progress; it is written at most once a second."""
        now = time.monotonic()
        self._points.append((now, done))
        while now - self._points[0][0] > RATE_WINDOW_SECONDS and len(self._points) > 2:
            self._points.pop(0)
        (then, first), total = self._points[0], total or self.progress["total"]
        rate = (done - first) / (now - then) if now > then and done > first else None
        self.progress.update(done=done, total=total, rate=rate and round(rate, 2 if rate > 0.1 else 5))
        self.progress["eta"] = round((total - done) / rate) if rate and total else None
        if losses:
            self.history.append(sum(losses))
            self.progress.update(loss_a=losses[0], loss_b=losses[1])
            if rate and self.progress["batch_size"]:
                self.progress["faces_per_second"] = round(2 * rate * self.progress["batch_size"], 1)
        if now - self._written >= 1.0 or done == total:
            self._written = now
            self.save()
            if losses:
                with self.as_room_allows(), self._losses.open("a", encoding="utf-8") as stream:
                    stream.write(f"{done},{losses[0]},{losses[1]}\n")

    def save(self, **changes: Any) -> None:
        """Write progress.json."""
        self.progress.update(changes, updated=time.time(), seconds=round(self.seconds(), 2))
        with self.as_room_allows():
            write_json(self._path, self.progress)

    def tell(self, text: str) -> None:
        """Tell what was decided while the stage runs, in the log and in its progress."""
        self.note(text)
        self.save(note=text)


class GpuUse:
    """Asks nvidia-smi now and then what the GPUs do, and never waits for it."""

    def __init__(self) -> None:
        self._asked = -GPU_SECONDS
        self._process: subprocess.Popen[str] | None = None

    def look(self) -> list[Json] | None:
        """Return use in percent and memory in MB of each GPU, if there is news of them."""
        if self._process is None:
            if time.monotonic() - self._asked >= GPU_SECONDS:
                self._asked = time.monotonic()
                with contextlib.suppress(OSError):
                    self._process = subprocess.Popen(
                        ["nvidia-smi", f"--query-gpu={GPU_QUERY}", "--format=csv,noheader,nounits"],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.DEVNULL,
                        text=True,
                    )
            return None
        if self._process.poll() is None:
            return None
        text, _ = self._process.communicate()
        self._process = None
        rows = [row.split(",") for row in text.splitlines()]
        names = ("percent", "memory_mb", "memory_total_mb")
        use = [dict(zip(names, map(int, row))) for row in rows if all(word.strip().isdigit() for word in row)]
        return use or None
