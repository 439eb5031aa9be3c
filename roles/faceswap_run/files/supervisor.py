#!/usr/bin/env python3
"""Runs one stage of a job on this host, and keeps what a watcher or a later run needs to know of it.

Standard library only, Python 3.9 or newer: it must work before anything is installed.

    supervisor.py start JOB_DIR STAGE [--check]   spec on stdin; answers with one JSON object
    supervisor.py run JOB_DIR STAGE               the stage itself, in the foreground (`start` detaches it)
    supervisor.py status JOB_DIR STAGE            one JSON object: progress, and whether anybody works on it
    supervisor.py stop JOB_DIR                    saves and ends whatever runs in this job

Where stages run in systemd units, root's `units.py` has the same verbs and asks this program, as the user of the
jobs, for everything but the unit: `--unit STATE` (idle, busy or pending: it waits for the boot) says what the unit
does, `go_on JOB_DIR/STAGE` is what the unit runs, and `wanted JOBS` lists what a boot has to bring back.

A stage is a command with explicit inputs and outputs. It is done again only when its command, the content of
its inputs or the engine changed, or when what it made is gone. `JOB_DIR/stages/STAGE/` holds:

    spec.json      what was asked for            state.json   what became of it (fingerprint, seconds, exit)
    progress.json  where it stands (running, done, stopped or failed), at most one write a second
    log.txt        the command's output          losses.csv   iteration,loss_a,loss_b (training only)
    lock           held as long as the supervisor, or the command that it started, lives
    supervisor.lock   held as long as the supervisor lives
    wanted         there from the start to the end or a stop by a person; a boot brings back what has one
    reserve        room to record the end in, should the disk become full

`JOB_DIR/start.lock` is held by a `start` that detaches; where stages have units, root holds one of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]

# Faceswap's own forms: `[14:19:31] [#00001] Loss A: 0.46971, Loss B: 0.44091`; tqdm's `45/100 [00:02<00:03`.
TRAINING = re.compile(r"\[#(\d+)\] Loss A: ([\d.]+), Loss B: ([\d.]+)")
COUNTING = re.compile(r"(\d+)/(\d+) \[")
ERROR = re.compile(r"^\S+ \S+ (?:ERROR|CRITICAL)\s+(.*)$")
FULL = re.compile(r"No space left on device|Disk quota exceeded")

LOG_PROGRESS_SECONDS = 30.0
STOP_SECONDS = 300.0  # a large model takes minutes to save
RATE_WINDOW_SECONDS = 20.0
RESERVE_BYTES = 65536  # far more than the records of an end

AGAIN = 75  # EX_TEMPFAIL: the unit starts the stage again after this exit code
# By these an engine is ended from outside (memory ran out, a person, the machine); a SIGSEGV is its own fault.
FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StageError(Exception):
    """A cause and a remedy in one sentence, for the user."""


class NotYetError(StageError):
    """Something that an earlier stage makes is not there: in check mode that is to be expected."""


def read_json(path: Path) -> Json:
    """Return the object in `path`, or an empty one where there is no (readable) file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: Path, content: Json) -> None:
    """Replace `path` in one step, so that a reader or a crash never meets half a file."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=1, sort_keys=True)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder outlast a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_full(error: OSError) -> bool:
    """Tell whether an error means that there is no room on the disk."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def sentence(error: Exception, place: Path) -> str:
    """Return cause and remedy of what went wrong with the files in `place`."""
    if not isinstance(error, OSError):
        return str(error)
    if is_full(error):
        return disk_full(place)
    return f"The host refused a file ({str(error).split('] ', 1)[-1]}): mend that, and run it again."


def disk_full(place: Path) -> str:
    """Return the sentence for a full disk."""
    return f"The disk of {place} is full: free some room, or set faceswap_run_dir to a larger disk, and run it again."


def files_below(path: Path) -> Iterator[Path]:
    """Yield the files of a file or folder in a fixed order, without Python's byte code."""
    if path.is_dir():
        for child in sorted(path.iterdir()):
            if child.name != "__pycache__":
                yield from files_below(child)
    elif path.exists():
        yield path


class Hashes:
    """SHA-256 of files and folders; a file is read again only when its size, time or inode changed."""

    def __init__(self, cache: Path) -> None:
        self._path = cache
        self._cache = read_json(cache)
        self._seen: Json = {}

    def of(self, path: Path) -> str:
        """Return the hex digest over names and contents below `path`; StageError if nothing is there."""
        if not path.exists():
            raise NotYetError(f"{path} is missing: run the stage that makes it first.")
        total = hashlib.sha256()
        for file in files_below(path):
            total.update(f"{file.relative_to(path)}\0{self._file(file)}\n".encode())
        return total.hexdigest()

    def _file(self, file: Path) -> str:
        stat = file.stat()
        mark = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        known = self._cache.get(str(file))
        if known is None or known[0] != mark:
            digest = hashlib.sha256()
            with file.open("rb") as stream:
                for block in iter(lambda: stream.read(1 << 20), b""):
                    digest.update(block)
            known = [mark, digest.hexdigest()]
        self._cache[str(file)] = self._seen[str(file)] = known
        return str(known[1])

    def save(self) -> None:
        """Keep what was hashed for the next run."""
        write_json(self._path, self._seen)


class Stage:
    """One stage of one job: its files, whether it is done, and how it is run."""

    def __init__(self, job: Path, name: str) -> None:
        self.job = job
        self.name = name
        self.folder = job / "stages" / name
        self.mark = self.folder / "wanted"
        self.spec = read_json(self.folder / "spec.json")
        self.state = read_json(self.folder / "state.json")

    # -- what was asked for ------------------------------------------------------------------------------

    def engine(self) -> Json:
        """Return the engine's own description, written by whoever installed it."""
        path = Path(self.spec["engine_file"])
        if path.exists() and not os.access(path, os.R_OK):
            raise StageError(f"{path} may not be read by the user of the jobs: run faceswap_install again.")
        engine = read_json(path)
        if not engine.get("command"):
            raise NotYetError(f"No engine is installed ({path} is missing): run faceswap_install first.")
        return engine

    def fingerprint(self, keep: bool = True) -> Json:
        """Return what the stage's result depends on: arguments, inputs and engine, each by content.

        Only who has the stage to itself may `keep` the hashes for the next time.
        """
        engine = self.engine()
        hashes = Hashes(self.folder / "hashes.json")
        inputs = {path: self.job / path for path in self.spec["inputs"]}
        if self.spec.get("script"):
            script = Path(__file__).parent / self.spec["script"]
            inputs[self.spec["script"]] = script.parent  # the script may import its neighbours
        parts: Json = {
            "arguments": self.spec["arguments"],
            "inputs": {name: hashes.of(path) for name, path in inputs.items()},
            "engine": {str(path): hashes.of(Path(path)) for path in engine.get("identity", [])},
        }
        if keep:
            hashes.save()
        parts["digest"] = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        return parts

    def iterations(self) -> int | None:
        """Return the iterations that the model has behind it; None if the stage counts none."""
        if not self.spec.get("iterations"):
            return None
        states = sorted((self.job / self.spec["model"]).glob("*_state.json"))
        return int(read_json(states[0]).get("iterations", 0)) if states else 0

    def command(self) -> list[str]:
        """Return the argument vector; Faceswap's `-i` counts from where the model stands."""
        engine = self.engine()
        if self.spec.get("script"):
            if "python" not in engine:
                raise StageError(f"{self.spec['engine_file']} names no python: run faceswap_install again.")
            head = [engine["python"], str(Path(__file__).parent / self.spec["script"])]
        else:
            head = list(engine["command"])
        tail = [*self.spec["arguments"], *self.spec.get("neutral_arguments", [])]
        done = self.iterations()
        if done is not None:
            tail += ["-i", str(self.spec["iterations"] - done)]
        return [str(word) for word in head + tail]

    # -- what is there -----------------------------------------------------------------------------------

    def seal(self) -> dict[str, str]:
        """Return a mark of the sealed outputs: names, sizes and times of all files."""
        marks = {}
        for output in self.spec["outputs"]:
            if output not in self.spec.get("editable", []):
                total = hashlib.sha256()
                for file in files_below(self.job / output):
                    stat = file.stat()
                    total.update(f"{file.relative_to(self.job)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
                marks[output] = total.hexdigest()
        return marks

    def missing_output(self) -> str | None:
        """Return the first output that is not there or is an empty folder."""
        for output in self.spec["outputs"]:
            if next(files_below(self.job / output), None) is None:
                return str(output)
        return None

    def reason_to_run(self, wanted: Json) -> str | None:
        """Return why the stage must be run, or None when it is done."""
        before = self.state.get("fingerprint")
        if not before:
            return "it was never run"
        if before["digest"] != wanted["digest"]:
            for part, word in (("engine", "the engine"), ("arguments", "the settings")):
                if before.get(part) != wanted[part]:
                    return f"{word} changed"
            changed = [k for k, v in wanted["inputs"].items() if before["inputs"].get(k) != v]
            return f"{', '.join(Path(path).name for path in changed) or 'the list of inputs'} changed"
        done = self.iterations()
        if done is not None and done < self.spec["iterations"]:
            return f"{done} of {self.spec['iterations']} iterations are done"
        if not self.state.get("complete") and done is None:
            return "the last run did not finish"
        gone = self.missing_output()
        if gone:
            return f"{gone} is gone"
        if done is None and self.state.get("seal") != self.seal():
            return "what it made was changed by hand"
        return None

    def lock(self, name: str = "lock") -> int | None:
        """Return a descriptor that holds a lock of the stage, or None while somebody else does."""
        descriptor = os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def alive(self, name: str = "lock") -> bool:
        """Tell whether somebody works on this stage now: supervisor or engine, or just the supervisor."""
        if not (self.folder / name).exists():
            return False
        descriptor = self.lock(name)
        if descriptor is None:
            return True
        os.close(descriptor)
        return False

    # -- doing -------------------------------------------------------------------------------------------

    def set_aside(self, wanted: Json) -> bool:
        """Move results of other inputs or settings out of the way, and bring back those that fit.

        Nothing is deleted here: a model that took days must not be lost to a changed setting. Returns
        whether an earlier result was brought back.
        """
        before = self.state.get("fingerprint")
        if before and before["digest"] != wanted["digest"]:
            self._move(self.job, self._shelf(before), rename_state=True)
        shelf = self._shelf(wanted)
        if not shelf.exists():
            return False
        self._move(shelf, self.job, rename_state=False)
        shelf.rmdir()
        return True

    def _shelf(self, fingerprint: Json) -> Path:
        return self.job / "superseded" / f"{self.name}-{fingerprint['digest'][:12]}"

    def _move(self, source: Path, target: Path, rename_state: bool) -> None:
        target.mkdir(parents=True, exist_ok=True)
        for output in self.spec["outputs"]:
            if (source / output).exists():
                self._make_way(target / output)
                (target / output).parent.mkdir(parents=True, exist_ok=True)
                (source / output).replace(target / output)
        # The state goes last: a kill before it leaves a stage that is simply moved, or run, again.
        names = ("losses.csv", "state.json")
        for name in names:
            here = self.folder / name if rename_state else source / name
            there = target / name if rename_state else self.folder / name
            if here.exists():
                here.replace(there)
        self.state = read_json(self.folder / "state.json")

    def _make_way(self, path: Path) -> None:
        """Remove what can be made again; a model is kept, even one that should not be here."""
        if path.exists() and self.iterations() is not None:
            number = 1
            while (kept := self.job / "superseded" / f"{self.name}-replaced-{number}").exists():
                number += 1
            kept.mkdir(parents=True)
            path.replace(kept / path.name)
        self._remove(path)

    @staticmethod
    def _remove(path: Path) -> None:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def prepare(self, wanted: Json) -> None:
        """Make the ground ready for a run, and write down what it will be before it begins."""
        if self.iterations() is None:
            # Half a result of an interrupted run would be taken for a whole one.
            for output in self.spec["outputs"]:
                self._remove(self.job / output)
        engine = self.engine()
        self.state = {
            "stage": self.name,
            "command": self.command(),
            "fingerprint": wanted,
            "started": time.time(),
            "finished": None,
            "seconds": self.state.get("seconds", 0.0) if self.iterations() else 0.0,
            "exit_code": None,
            "message": None,
            "again": False,
            "iterations": self.iterations(),
            "complete": False,
            "engine": {
                "name": engine.get("name", "unknown"),
                "digest": hashlib.sha256(json.dumps(wanted["engine"], sort_keys=True).encode()).hexdigest(),
            },
        }
        write_json(self.folder / "state.json", self.state)
        (self.folder / "reserve").write_bytes(b"\0" * RESERVE_BYTES)

    def check_room(self) -> None:
        """Raise StageError where the disk has less room than the stage asks for."""
        place = self.job
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free // 2**20
        need = self.spec.get("need_mb", 0)
        if free < need:
            raise StageError(
                f"Only {free} MB are free in {self.job} and stage {self.name} needs {need} MB: "
                "free some room, or set faceswap_run_dir to a larger disk."
            )

    def go_on(self) -> int:
        """Run what is wanted, anew or from where it was cut off. Returns the unit's exit code.

        systemd calls this at the start, after a kill and after a boot. Only AGAIN asks it for another try.
        """
        locks = self.take_locks()
        try:
            # A kill may have come between the record of an end and the removal of the mark.
            ended = self.state.get("finished") is not None and not self.state.get("again")
            if ended or not self.mark.exists():
                self.mark.unlink(missing_ok=True)
                return 0
            wanted = self.fingerprint()
            if wanted["digest"] != self.state.get("fingerprint", {}).get("digest"):
                raise StageError(f"What stage {self.name} works on changed while it was interrupted: run it again.")
            self.prepare(wanted)
            self.run(locks)
        except (StageError, OSError) as error:
            self.record(finished=time.time(), exit_code=1, message=sentence(error, self.job), again=False)
            self.mark.unlink(missing_ok=True)
            raise
        if self.state["again"]:
            # Stopped by systemd: it goes on after the boot. Ended from outside: it goes on at once.
            return 0 if self.state["stopped"] else AGAIN
        self.mark.unlink(missing_ok=True)
        return 0 if self.state["complete"] else 1

    def take_locks(self) -> list[int]:
        """Return the descriptors that hold the stage and its supervisor; StageError if somebody else does."""
        locks = [self.lock(), self.lock("supervisor.lock")]
        taken = [lock for lock in locks if lock is not None]
        if len(taken) < len(locks):
            raise StageError(f"Stage {self.name} is being worked on already.")
        return taken

    def record(self, **changes: Any) -> None:
        """Write down what became of the stage, on a full disk in the room that was kept for it."""
        (self.folder / "reserve").unlink(missing_ok=True)
        self.state.update(changes)
        write_json(self.folder / "state.json", self.state)

    def run(self, locks: list[int]) -> int:
        """Run the command to its end and record it. Returns the exit code that the stage deserves."""
        clock = time.monotonic()
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **self.engine().get("environment", {})}
        stopping: list[int] = []
        process: subprocess.Popen[bytes] | None = None

        def interrupt(number: int, _frame: object) -> None:
            stopping.append(number)
            if process and process.poll() is None:
                process.send_signal(signal.SIGINT)  # Faceswap saves on SIGINT and dies on SIGTERM

        # Before the command starts: it must not inherit an ignored SIGINT from a shell's background job.
        signal.signal(signal.SIGTERM, interrupt)
        signal.signal(signal.SIGINT, interrupt)
        # Unbuffered: what a full disk does not take is lost, and does not come back when the file is closed.
        with (self.folder / "log.txt").open("ab", buffering=0) as log:
            watch = Watch(self, log)
            watch.note(" ".join(self.state["command"]))
            process = subprocess.Popen(
                self.state["command"],
                cwd=self.job,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a terminal's Ctrl-C must reach it through us alone, and once
                pass_fds=[locks[0]],  # an engine that outlives us still holds the lock
            )
            if stopping:
                process.send_signal(signal.SIGINT)
            self.state["engine_pid"] = process.pid
            self.state["supervisor_pid"] = os.getpid()
            write_json(self.folder / "state.json", self.state)
            print("started", flush=True)
            self._silence()
            assert process.stdout is not None
            watch.follow(process.stdout.fileno())
            code = process.wait()
            self._finish(code, bool(stopping), watch, time.monotonic() - clock)
        return int(self.state["exit_code"])

    @staticmethod
    def _silence() -> None:
        """Let go of the starter's pipe: it must not wait for us."""
        if not sys.stdout.isatty():
            with Path(os.devnull).open("w") as nothing:
                os.dup2(nothing.fileno(), 1)

    def _finish(self, code: int, stopped: bool, watch: Watch, seconds: float) -> None:
        done, log = self.iterations(), self.folder / "log.txt"
        message = None
        again = stopped or -code in FROM_OUTSIDE
        if code < 0:
            where = f" at iteration {watch.progress['done']}, saved at {done}" if done is not None else ""
            message = f"Stage {self.name} was ended by {signal.Signals(-code).name}{where}: run it again."
            code = 128 - code
        elif code and watch.disk_full:
            message = disk_full(self.job)
            if done is None:
                for output in self.spec["outputs"]:  # half a result is of no use, and gives its room back
                    self._remove(self.job / output)
        elif code:
            message = watch.last_error or f"The engine ended with exit code {code}: see {log}."
        elif done is not None and done < self.spec["iterations"]:
            code = 75  # EX_TEMPFAIL: to be tried again
            message = f"Training stands at {done} of {self.spec['iterations']} iterations: run it again."
        elif self.missing_output():
            code = 1
            message = f"The engine ended well but made no {self.missing_output()}: see {log}."
        if stopped and code:
            message = f"Stage {self.name} was stopped" + (
                f" and saved at {done} of {self.spec['iterations']} iterations" if done is not None else ""
            )
            message += ": run it again to go on."
        complete = code == 0
        if message:
            watch.note(message)
        self.record(
            finished=time.time(),
            seconds=round(self.state["seconds"] + seconds, 2),
            exit_code=code,
            message=message,
            iterations=done,
            complete=complete,
            stopped=stopped,
            again=again and not complete,
            seal=self.seal() if complete else None,
        )
        watch.close("done" if complete else "stopped" if stopped else "failed")
        if complete and done is None:
            # The replaced results can be made again; a replaced model is kept.
            for shelf in (self.job / "superseded").glob(f"{self.name}-*"):
                shutil.rmtree(shelf, ignore_errors=True)


class Watch:
    """Reads a command's output: log lines into the log, progress into progress.json and losses.csv."""

    def __init__(self, stage: Stage, log: Any) -> None:
        self.stage = stage
        self.log = log
        self.last_error: str | None = None
        self.disk_full = False
        self._path = stage.folder / "progress.json"
        self._losses = stage.folder / "losses.csv"
        self._points: list[tuple[float, int]] = []
        self._written = self._logged = 0.0
        self._base = stage.iterations() or 0
        self.progress: Json = {
            "stage": stage.name,
            "state": "running",
            "done": self._base,
            "total": stage.spec.get("iterations"),
            "rate": None,
            "loss_a": None,
            "loss_b": None,
            "eta": None,
            "updated": time.time(),
        }
        if stage.iterations() is not None and (not self._base or not self._losses.exists()):
            with self._as_room_allows():
                self._losses.write_text("iteration,loss_a,loss_b\n", encoding="utf-8")
        self._save()

    def follow(self, descriptor: int) -> None:
        """Read until the command closes its output. Lines end in a newline or a carriage return."""
        rest = b""
        while True:
            block = os.read(descriptor, 65536)
            *lines, rest = re.split(rb"[\r\n]", rest + block)
            for line in lines if block else [*lines, rest]:
                self._line(line.decode("utf-8", "replace"))
            if not block:
                return

    def _line(self, line: str) -> None:
        line = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line).rstrip()
        training, counting = TRAINING.search(line), COUNTING.search(line)
        if training:
            self._advance(int(training[1]), None, float(training[2]), float(training[3]))
        elif counting:
            self._advance(int(counting[1]), int(counting[2]), None, None)
        elif line:
            self._write(line)
            self.disk_full = self.disk_full or bool(FULL.search(line))
            error = ERROR.match(line)
            if error:
                self.last_error = error[1]
            return
        now = time.monotonic()
        if line and now - self._logged >= LOG_PROGRESS_SECONDS:
            self._logged = now
            self._write(line)

    def note(self, text: str) -> None:
        """Add a line of our own to the log, in the form of Faceswap's."""
        self._write(f"{time.strftime('%m/%d/%Y %H:%M:%S')} INFO     {text}")

    def _write(self, line: str) -> None:
        with self._as_room_allows():
            self.log.write(f"{line}\n".encode())

    @contextlib.contextmanager
    def _as_room_allows(self) -> Iterator[None]:
        """Go on without a record that the disk has no room for: the engine may still save its work."""
        try:
            yield
        except OSError as error:
            if not is_full(error):
                raise
            self.disk_full = True

    def _advance(self, done: int, total: int | None, loss_a: float | None, loss_b: float | None) -> None:
        now = time.monotonic()
        self._points.append((now, done))
        while now - self._points[0][0] > RATE_WINDOW_SECONDS:
            self._points.pop(0)
        (then, first), total = self._points[0], total or self.progress["total"]
        rate = (done - first) / (now - then) if now > then and done > first else None
        self.progress.update(
            done=done,
            total=total,
            rate=rate and round(rate, 2),
            loss_a=loss_a,
            loss_b=loss_b,
            eta=round((total - done) / rate) if rate and total else None,
        )
        if now - self._written >= 1.0 or done == total:
            self._written = now
            self._save()
            if loss_a is not None:
                with self._as_room_allows(), self._losses.open("a", encoding="utf-8") as losses:
                    losses.write(f"{done},{loss_a},{loss_b}\n")

    def _save(self) -> None:
        self.progress["updated"] = time.time()
        with self._as_room_allows():
            write_json(self._path, self.progress)

    def close(self, state: str) -> None:
        """Record the end."""
        self.progress.update(state=state, eta=None)
        done = self.stage.state["iterations"]
        if done is not None:
            self.progress["done"] = done
        self._save()


def start(job: Path, name: str, check: bool, unit: str | None) -> Json:
    """Bring a stage to its end: nothing to do, join the one that runs, or start it.

    Started is it detached, or, where it has a unit, by who asked, if the answer says `launch`. Whoever asks for a
    unit holds a lock as long as this takes, and looks at nothing before: two starts would both set the model aside.
    """
    if check or unit:
        return start_locked(job, name, check, unit)
    job.mkdir(parents=True, exist_ok=True)
    with (job / "start.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return start_locked(job, name, check, unit)


def start_locked(job: Path, name: str, check: bool, unit: str | None) -> Json:
    """Do what `start` says; StageError where another start or stage would be disturbed."""
    stage = Stage(job, name)
    kept = kept_by_unit(stage, unit)
    was_running = kept or stage.alive()
    wanted_spec = json.load(sys.stdin)
    running_spec, stage.spec = stage.spec, wanted_spec
    if was_running:
        if running_spec != wanted_spec:
            raise StageError(
                f"Stage {name} is running with other settings: wait for it, or stop it with the tag stop, "
                "and run again."
            )
        if kept or stage.alive("supervisor.lock"):
            wanted = stage.fingerprint(keep=False)
            if wanted["digest"] != stage.state.get("fingerprint", {}).get("digest"):
                raise StageError(
                    f"Stage {name} is running on other inputs ({stage.reason_to_run(wanted)}): stop it with the tag "
                    "stop, and run again."
                )
            command = stage.state["command"]
            return {"changed": True, "running": True, "reason": "it was running already", "command": command}
        if not check:
            end_orphan(stage)
            stage.state = read_json(stage.folder / "state.json")
    if not check:
        stage.folder.mkdir(parents=True, exist_ok=True)
    try:
        wanted = stage.fingerprint(keep=not check)
    except NotYetError as missing:
        if check:
            return {"changed": True, "running": False, "reason": f"for now, {missing}", "command": []}
        raise
    reason = stage.reason_to_run(wanted)
    answer: Json = {"changed": reason is not None, "running": False, "reason": reason or "nothing changed"}
    answer["command"] = stage.command() if reason else stage.state["command"]
    if reason is None:
        return answer
    refuse_to_disturb(stage)
    if check:
        return answer
    stage.check_room()
    write_json(stage.folder / "spec.json", wanted_spec)
    if stage.set_aside(wanted) and stage.reason_to_run(wanted) is None:
        return {**answer, "reason": "an earlier result of these inputs and settings was brought back"}
    stage.prepare(wanted)
    answer.update(running=True, command=stage.state["command"])
    if unit:
        stage.mark.touch()  # after the record of what is wanted: a boot may come at any moment
        sync_folder(stage.folder)
        return {**answer, "launch": True}
    detach(stage)
    return answer


def refuse_to_disturb(stage: Stage) -> None:
    """Raise StageError where another stage of the job works, or will go on by itself, with what this one makes."""
    for folder in sorted((stage.job / "stages").glob("*")):
        other = Stage(stage.job, folder.name)
        shared = [path for path in other.spec.get("inputs", []) if path in stage.spec["outputs"]]
        if shared and (other.mark.exists() or other.alive()):
            raise StageError(
                f"Stage {other.name} is running on {', '.join(shared)}, which stage {stage.name} would make anew: "
                "wait for it, or stop it with the tag stop, and run again."
            )


def kept_by_unit(stage: Stage, unit: str | None) -> bool:
    """Tell whether the unit works on the stage, or will without being asked; `unit` is what it does now."""
    return unit == "busy" or (unit == "pending" and stage.mark.exists())


def detach(stage: Stage) -> None:
    """Start the stage's run in a session of its own; StageError if it does not begin."""
    with (stage.folder / "supervisor.log").open("w") as log:
        child = subprocess.Popen(
            [sys.executable, __file__, "run", str(stage.job), stage.name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # the controller's connection may go, the stage stays
        )
        assert child.stdout is not None
        if child.stdout.readline().strip() != b"started":
            child.wait()
            raise StageError((stage.folder / "supervisor.log").read_text().strip() or "It did not start.")


def end_orphan(stage: Stage) -> None:
    """Let an engine that lost its supervisor save and end, so that the stage can be taken up again."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(int(stage.state["engine_pid"]), signal.SIGINT)
    wait_for_end(stage)


def wait_for_end(stage: Stage) -> None:
    """Wait until nobody holds the stage's lock; StageError after STOP_SECONDS."""
    deadline = time.monotonic() + STOP_SECONDS
    while stage.alive():
        if time.monotonic() > deadline:
            raise StageError(
                f"Stage {stage.name} did not end within {STOP_SECONDS:.0f} s: "
                f"end process {stage.state['engine_pid']} by hand."
            )
        time.sleep(0.1)


def status(job: Path, name: str, unit: str | None) -> Json:
    """Return progress and whether the stage is being worked on; the end's message once it is over."""
    stage = Stage(job, name)
    # First the lock, then the files: what is written before the lock is let go is then surely read.
    alive = kept_by_unit(stage, unit) or stage.alive()
    stage = Stage(job, name)
    keys = ("seconds", "exit_code", "message", "iterations", "complete")
    return {
        "alive": alive,
        "progress": read_json(stage.folder / "progress.json"),
        **{key: stage.state.get(key) for key in keys},
    }


def stop(job: Path, unit: str | None) -> Json:
    """Save and end every stage of the job that runs; where stages have units, who asked ends those."""
    stopped = []
    stages = [Stage(job, folder.name) for folder in sorted((job / "stages").glob("*"))]
    for stage in stages:
        if unit:
            if stage.mark.exists():
                stage.mark.unlink()  # before its unit ends: no boot shall bring it back
                stopped.append(stage.name)
        elif stage.alive():
            if stage.alive("supervisor.lock"):
                os.kill(int(stage.state["supervisor_pid"]), signal.SIGTERM)
                wait_for_end(stage)
            else:
                end_orphan(stage)
            stopped.append(stage.name)
    answer: Json = {"changed": bool(stopped), "stopped": stopped}
    return {**answer, "stages": [stage.name for stage in stages]} if unit else answer


def wanted(jobs: Path) -> Json:
    """Return job and stage of everything that is to go on after a boot."""
    return {"stages": [[mark.parts[-4], mark.parts[-2]] for mark in sorted(jobs.glob("*/stages/*/wanted"))]}


def main() -> int:
    """Parse the command line and answer in JSON; errors are one sentence in `error`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["start", "run", "go_on", "status", "stop", "wanted"])
    parser.add_argument("place", type=Path)
    parser.add_argument("stage", nargs="?")
    parser.add_argument("--check", action="store_true", help="start: say what would be done, and do nothing")
    parser.add_argument("--unit", choices=["idle", "busy", "pending"], help="what the stage's unit does")
    options = parser.parse_args()
    place = options.place.expanduser().absolute()
    if (options.stage is None) != (options.verb in ("go_on", "stop", "wanted")):
        parser.error(f"{options.verb} takes {'a' if options.stage is None else 'no'} STAGE")
    try:
        if options.verb == "run":
            stage = Stage(place, options.stage)
            return stage.run(stage.take_locks())
        if options.verb == "go_on":
            return Stage(place.parent, place.name).go_on()
        if options.verb == "start":
            answer = start(place, options.stage, options.check, options.unit)
        elif options.verb == "status":
            answer = status(place, options.stage, options.unit)
        elif options.verb == "stop":
            answer = stop(place, options.unit)
        else:
            answer = wanted(place)
    except (StageError, OSError) as error:
        text = sentence(error, place)
        if options.verb in ("run", "go_on"):
            print(text, file=sys.stderr)
        else:
            print(json.dumps({"error": text}))
        return 1
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
