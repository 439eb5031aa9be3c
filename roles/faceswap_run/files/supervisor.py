#!/usr/bin/env python3
"""Runs one stage of a job on this host, and keeps what a watcher or a later run needs to know of it.

Standard library only, Python 3.9 or newer: it must work before anything is installed. Its neighbours: records.py
(what outlasts a crash), watch.py (reads the command's output), watchdog.py (runs it, and knows slow from stuck),
training.py and versions.py (what a training needs beyond that), gate.py and consent.py (what may run at all, and on
whose consent), purge.py (what is removed when a consent is revoked).

    supervisor.py start JOB_DIR STAGE [--check]   spec on stdin; answers with one JSON object
    supervisor.py run JOB_DIR STAGE               the stage itself, in the foreground (`start` detaches it)
    supervisor.py status JOB_DIR STAGE            one JSON object: progress, and whether anybody works on it
    supervisor.py stop JOB_DIR                    saves and ends whatever runs in this job
    supervisor.py released JOB_DIR                what is to be signed: the result, and on whose consent it was made
    supervisor.py purge JOBS ID...                removes what was made on these consents, whichever job it is in

A refusal has a `code` beside its `error`, which is the exit code too: 20 to 31, see consent.py and gate.py.

Where stages run in systemd units, root's `units.py` has the same verbs and asks this program, as the user of the
jobs, for everything but the unit: `--unit STATE` (idle, busy or pending: it waits for the boot) says what the unit
does, `go_on JOB_DIR/STAGE` is what the unit runs, and `wanted JOBS` lists what a boot has to bring back.

A stage is a command with explicit inputs and outputs. It is done again only when its command, the content of
its inputs or the engine changed, or when what it made is gone. `JOB_DIR/stages/STAGE/` holds:

    spec.json      what was asked for            state.json   what became of it (fingerprint, seconds, exit)
    progress.json  where it stands (running, done, stopped or failed), at most one write a second
    made.json      what it made, file by file, of which sources and on whose consent: see gate.py
    log.txt        the command's output          losses.csv   iteration,loss_a,loss_b (training only)
    checkpoints/   versions of the model         batch.json   its batch size (training only)
    lock           held as long as the supervisor, or the command that it started, lives
    supervisor.lock   held as long as the supervisor lives
    wanted         there from the start to the end or a stop by a person; a boot brings back what has one
    reserve        room to record the end in, should the disk become full

`JOB_DIR/start.lock` is held by a `start` that detaches; where stages have units, root holds one of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

# The interpreter is told to look nowhere but in its own library (-I), and root's folder of programs stays as it is.
sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True

from records import (  # noqa: E402  # they are found only now
    Hashes,
    Json,
    NotYetError,
    StageError,
    disk_full,
    files_below,
    read_json,
    sentence,
    sync_folder,
    write_json,
)
from training import CutOffError, Training, damaged, enough, write_settings  # noqa: E402
from versions import Versions, iterations_of  # noqa: E402
from watch import GpuUse, Watch  # noqa: E402
from watchdog import FROM_OUTSIDE, STOP_SECONDS, STUCK_SECONDS, Ending, Runner  # noqa: E402

if TYPE_CHECKING:
    import gate
    import purge

RESERVE_BYTES = 65536  # far more than the records of an end

# What a refusal ends with, also that of a script: 31 where faces/extract.py finds another person's faces.
REFUSALS = range(20, 32)
# The programs were compared with the role's: byte code that lies about beside them has no say.
ISOLATED = ("-I", "-B", "-X", "pycache_prefix=/nonexistent")

AGAIN = 75  # EX_TEMPFAIL: the unit starts the stage again after this exit code


class Stage:
    """One stage of one job: its files, whether it is done, and how it is run."""

    def __init__(self, job: Path, name: str) -> None:
        self.job = job
        self.name = name
        self.folder = job / "stages" / name
        self.mark = self.folder / "wanted"
        self.spec = read_json(self.folder / "spec.json")
        self.state = read_json(self.folder / "state.json")
        self.hashes = Hashes(self.folder / "hashes.json")

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
        hashes = self.hashes = Hashes(self.folder / "hashes.json")
        inputs = {path: self.job / path for path in self.spec["inputs"]} | gate.pictures_of(self.job, self.name)
        if self.spec.get("script"):
            script = Path(__file__).parent / self.spec["script"]
            inputs |= {f"{script.parent.name}/{path.name}": path for path in with_imports(script)}
        parts: Json = {
            "arguments": self.spec["arguments"],
            "inputs": {name: hashes.of(path) for name, path in inputs.items()},
            "engine": {str(path): hashes.of(Path(path)) for path in engine.get("identity", [])},
        }
        if self.spec.get("settings"):
            parts["settings"] = self.spec["settings"]
        if keep:
            hashes.save()
        parts["digest"] = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        return parts

    def iterations(self) -> int | None:
        """Return the iterations that the model has behind it; None if the stage counts none."""
        return iterations_of(self.job / self.spec["model"]) if self.spec.get("iterations") else None

    def words(self, engine: Json) -> list[str]:
        """Return the command's argument vector as far as it decides what is made."""
        if self.spec.get("script"):
            if "python" not in engine:
                raise StageError(f"{self.spec['engine_file']} names no python: run faceswap_install again.")
            head = [engine["python"], str(Path(__file__).parent / self.spec["script"])]
        else:
            head = list(engine["command"])
        ini = ["-C", f"{self.name}.ini"] if self.ini() else []
        return [str(word) for word in [*head, *self.spec["arguments"], *ini]]

    def command(self, engine: Json, tail: list[str] | None = None) -> list[str]:
        """Return the whole argument vector. A training's `tail` says where it goes on, and by what batches."""
        if tail is None:
            done = self.iterations()
            tail = [] if done is None else ["-i", str(self.spec["iterations"] - done)]
        return [*self.words(engine), *map(str, self.spec.get("neutral_arguments", [])), *tail]

    def ini(self) -> Json:
        """Return the sections of the engine's settings: those that make what is made, and the others."""
        sections: Json = {}
        for part in (self.spec.get("settings") or {}, self.spec.get("neutral_settings") or {}):
            for name, options in part.items():
                sections.setdefault(name, {}).update(options)
        return sections

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
            words = (("engine", "the engine"), ("arguments", "the settings"), ("settings", "the settings"))
            for part, word in words:
                if before.get(part) != wanted.get(part):
                    return f"{word} changed"
            changed = [k for k, v in wanted["inputs"].items() if before["inputs"].get(k) != v]
            return f"{', '.join(Path(path).name for path in changed) or 'the list of inputs'} changed"
        done = self.iterations()
        broken = damaged(self.folder, self.job / self.spec["model"]) if done is not None else None
        if broken:
            return f"the model is broken ({broken})"
        if done is not None and done < self.spec["iterations"] and not enough(self.spec, self.state):
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
        # Folders around outputs are left empty; what else is there was made by a former version, and stays.
        for folder in [*sorted((path for path in shelf.rglob("*") if path.is_dir()), reverse=True), shelf]:
            with contextlib.suppress(OSError):
                folder.rmdir()
        return True

    def set_model_aside(self) -> None:
        """Keep a model, and its versions, of which it is not known what they were made of, out of the way."""
        model = self.job / self.spec["model"]
        Versions(self.folder, model, 0, [], {}).set_aside(self.job / "superseded", versions=True)
        self._remove(model.with_name(f"{model.name}.restored"))

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
        names = ("losses.csv", "checkpoints", "made.json", "state.json")
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
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def prepare(self, wanted: Json) -> None:
        """Make the ground ready for a run, and write down what it will be before it begins."""
        self._clear()
        if not self._was_cut_off(wanted):
            for output in self.spec["outputs"]:
                self._remove(self.job / f"{output}.parts")
        engine = self.engine()
        self.state = {
            "stage": self.name,
            "command": self.command(engine),
            "fingerprint": wanted,
            "started": time.time(),
            "finished": None,
            "seconds": self.seconds_before(),
            "exit_code": None,
            "message": None,
            "again": False,
            "iterations": self.iterations(),
            "complete": False,
            "engine": {
                "name": engine.get("name", "unknown"),
                "version": engine.get("version"),
                "digest": hashlib.sha256(json.dumps(wanted["engine"], sort_keys=True).encode()).hexdigest(),
            },
        }
        write_json(self.folder / "state.json", self.state)
        (self.folder / "reserve").write_bytes(b"\0" * RESERVE_BYTES)

    def _was_cut_off(self, wanted: Json) -> bool:
        """Tell whether a run of the same was ended from outside: what is half made is taken up only then."""
        same = self.state.get("fingerprint", {}).get("digest") == wanted["digest"]
        unfinished = self.state.get("finished") is None or bool(self.state.get("again"))
        return same and unfinished and not self.state.get("complete")

    def _clear(self) -> None:
        """Remove half a result of an interrupted run, which would be taken for a whole one; a model goes on."""
        if self.iterations() is None:
            self._remove(self.folder / "made.json")
            for output in self.spec["outputs"]:
                self._remove(self.job / output)

    def seconds_before(self) -> float:
        """Return the seconds of earlier runs that count: a training's, whose end may have gone unrecorded."""
        if not (self.iterations() or (self.folder / "checkpoints").exists()):
            return 0.0
        told = read_json(self.folder / "progress.json").get("seconds", 0.0) if not self.state.get("finished") else 0.0
        return max(float(self.state.get("seconds", 0.0)), float(told))

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
        except Exception as error:
            self.record_failure(error)
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

    def record_failure(self, error: Exception) -> None:
        """Write down an error of ours, or a refusal."""
        code = code_of(error)
        refused = code if code > 1 else None
        message = sentence(error, self.job)
        self.record(finished=time.time(), exit_code=code, message=message, again=False, refused=refused)

    def run(self, locks: list[int]) -> int:
        """Run the command to its end and record it. Returns the exit code that the stage deserves.

        Nothing of the engine runs before the gate has admitted the stage, by the files as they are now.
        """
        gate.shape_of(self.job, self.name, self.spec)
        engine = self.engine()
        environment = {
            # What would put other code into the engine's process.
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LD_"))},
            "PYTHONUNBUFFERED": "1",
            "FACESWAP_OCI_STAGE_DIR": str(self.folder),  # where an engine puts what it would write beside itself
            **engine.get("environment", {}),
        }
        stuck = float(self.spec.get("stuck_s") or STUCK_SECONDS)
        runner = Runner(self.job, environment, locks[0], stuck, self._command_started)
        runner.listen()
        self.state["supervisor_pid"] = os.getpid()
        write_json(self.folder / "state.json", self.state)
        # Unbuffered: what a full disk does not take is lost, and does not come back when the file is closed.
        with (self.folder / "log.txt").open("ab", buffering=0) as log:
            watch = Watch(self.folder, log, self.spec.get("iterations"), self.state["seconds"])
            training = self._training(engine, runner) if self.spec.get("iterations") else None
            try:
                admission = gate.admit(self.job, self.name, self.spec)
                self.state["consents"] = admission.about_consents()
                if training:
                    admission.begin()
                try:
                    ending = self._run_until_it_ends(engine, runner, watch, training, admission)
                finally:
                    if training:
                        training.close(watch)
                self._let_go_of_the_starter()  # even if there was no command to run
                self._see_that_it_holds(admission)
                self._finish(ending, runner.stopped, watch, training, admission)
            except Exception as error:
                if not isinstance(error, (StageError, OSError)):
                    watch.write(traceback.format_exc())
                self.record_failure(error)
                watch.save(state="failed", eta=None)
                raise
        return int(self.state["exit_code"])

    def _see_that_it_holds(self, admission: gate.Admission) -> None:
        """Raise GateError where the stage worked on other files than were admitted; what it made then goes."""
        try:
            admission.still_holds()
        except gate.GateError:
            if self.iterations() is not None:
                self.set_model_aside()
            self._remove(self.folder / "made.json")
            for output in self.spec["outputs"]:
                self._remove(self.job / output)
            raise

    def _training(self, engine: Json, runner: Runner) -> Training:
        digest = self.state["fingerprint"]["digest"]
        return Training(self.folder, self.job, self.spec, engine, digest, self.words(engine), runner)

    def _run_until_it_ends(
        self, engine: Json, runner: Runner, watch: Watch, training: Training | None, admission: gate.Admission
    ) -> Ending:
        """Run the command, again where that can help: a training with less memory, once what hung by itself."""
        gpus = GpuUse() if engine.get("backend") == "nvidia" else None
        hung = False

        def tick() -> bool:
            use = gpus.look() if gpus else None
            if use:
                watch.save(gpus=use)
            if training:
                admission.look_again()
            return training.tick(watch) if training else False

        while True:
            if self.ini():
                write_settings(self.job / f"{self.name}.ini", self.ini())
            if training:
                try:
                    training.make_ready(watch)
                except CutOffError as cut_off:
                    return cut_off.ending
                self.state["seconds"] = watch.spent  # a model that is begun anew has none behind it
            else:
                watch.go_on_from(None)
            if runner.stopped:
                return Ending(-signal.SIGINT, False, 0.0)
            if training and training.is_done(watch):  # an older version of a broken model may have all iterations
                return Ending(0, False, 0.0)
            self.state["command"] = words = self.command(engine, training.tail() if training else None)
            watch.note(" ".join(words))
            ending = runner.run(words, watch, tick)
            if runner.stopped or (training and training.ended):
                return ending
            if training and training.tries_again(ending, watch):
                continue
            if training and training.went_on():
                hung = False
            if ending.stuck and not watch.failing and not hung:
                hung = True
                watch.tell("The engine hung: it is started once more.")
                self._clear()
                continue
            return ending

    def _command_started(self, process: int) -> None:
        """Record who works on the stage."""
        self.state["engine_pid"] = process
        write_json(self.folder / "state.json", self.state)
        self._let_go_of_the_starter()

    @staticmethod
    def _let_go_of_the_starter() -> None:
        """Tell who waits for it that the stage runs, and close the pipe: it must not wait for us."""
        print("started", flush=True)
        if not sys.stdout.isatty():
            with Path(os.devnull).open("w") as nothing:
                os.dup2(nothing.fileno(), 1)

    def _saved(self, training: Training) -> bool:
        """Tell whether a training that was to end saved what it had then."""
        model = training.model
        return iterations_of(model) >= max(1, training.ended_at) and not damaged(self.folder, model)

    def _finish(
        self, ending: Ending, stopped: bool, watch: Watch, training: Training | None, admission: gate.Admission
    ) -> None:
        done, code, log = self.iterations(), ending.code, self.folder / "log.txt"
        ended = training.ended if training else None
        message = None
        again = stopped or (-code in FROM_OUTSIDE and not ending.stuck)
        if ending.stuck and done is not None and done >= self.spec["iterations"]:
            code = 0  # it hung when all was done
        elif training and ended and self._saved(training):
            code = 0  # it hung, or fell, after it was told to save and end, and had saved
        elif ending.stuck and not stopped:
            said = watch.cause() if watch.failing else None
            message = said or f"The engine did nothing for {ending.idle:.0f} s, again after a new start: see {log}."
            code = abs(code) or 1
        elif code < 0:
            where = f" at iteration {watch.progress['done']}, saved at {done}" if done is not None else ""
            message = f"Stage {self.name} was ended by {signal.Signals(-code).name}{where}: run it again."
            code = 128 - code
        elif code and watch.disk_full:
            message = disk_full(self.job)
            if done is None:
                for output in self.spec["outputs"]:  # half a result is of no use, and gives its room back
                    self._remove(self.job / output)
        elif code:
            message = watch.cause() or f"The engine ended with exit code {code}: see {log}."
        elif done is not None and done < self.spec["iterations"] and not ended:
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
        made = admission.record(self.spec["outputs"]) if complete or training else {}
        self.record(
            finished=time.time(),
            seconds=round(watch.seconds(), 2),
            exit_code=code,
            message=message,
            iterations=done,
            ended=ended if complete else None,
            complete=complete,
            stopped=stopped,
            again=again and not complete,
            seal=self.seal() if complete else None,
            refused=code if code in REFUSALS and self.spec.get("script") else None,
            sources=admission.sources,
            inputs=admission.inputs,
            outputs=made,
        )
        watch.save(state="done" if complete else "stopped" if stopped else "failed", eta=None)
        if done is not None:
            watch.save(done=done)
        if complete and done is None and not self.spec.get("editable"):
            # The replaced results can be made again; a replaced model and a person's work are kept.
            for shelf in (self.job / "superseded").glob(f"{self.name}-*"):
                shutil.rmtree(shelf, ignore_errors=True)


def with_imports(script: Path) -> list[Path]:
    """Return a script and what it imports, itself or through others, from its own folder."""
    found: list[Path] = []
    waiting = [script]
    while waiting:
        path = waiting.pop()
        if path.exists() and path not in found:
            found.append(path)
            names = re.findall(r"^(?:from|import) (\w+)", path.read_text(encoding="utf-8"), re.M)
            waiting += [script.with_name(f"{name}.py") for name in names]
    return sorted(found)


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
    wanted_spec, revocations = take_order()
    running_spec, stage.spec = stage.spec, wanted_spec
    gate.shape_of(job, name, wanted_spec)  # before anything that the words name is looked at
    if revocations and not check:
        gate.take_revocations(job, revocations["text"], revocations["sig"])
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
            consents = stage.state.get("consents", {})
            answer = {"changed": True, "running": True, "reason": "it was running already", "command": command}
            return {**answer, "consents": consents}
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
    reason = stage.reason_to_run(wanted) or gate.unrecorded(job, name, stage.hashes)
    answer = {"changed": reason is not None, "running": False, "reason": reason or "nothing changed"}
    answer["command"] = stage.command(stage.engine()) if reason else stage.state["command"]
    answer["consents"] = stage.state.get("consents", {})
    if reason is None:
        return answer
    refuse_to_disturb(stage)
    try:
        # What was not read anew counts here: it is a word to the user in time. What runs is looked at in `run`.
        before = stage.state.get("fingerprint", {}).get("digest", wanted["digest"])
        anew = before != wanted["digest"] or gate.has_unknown_model(job, name)
        answer["consents"] = gate.admit(job, name, wanted_spec, stage.hashes, anew).about_consents()
    except gate.GateError as error:
        if check and error.code == REFUSALS[0]:
            return {**answer, "reason": f"for now, {error}", "command": []}
        raise
    if check:
        return answer
    stage.hashes.save()
    stage.check_room()
    write_json(stage.folder / "spec.json", wanted_spec)
    back = stage.set_aside(wanted)
    if gate.has_unknown_model(job, name):
        stage.set_model_aside()
    if back and (stage.reason_to_run(wanted) or gate.unrecorded(job, name, stage.hashes)) is None:
        return {**answer, "reason": "an earlier result of these inputs and settings was brought back"}
    stage.prepare(wanted)
    answer.update(running=True, command=stage.state["command"])
    if unit:
        stage.mark.touch()  # after the record of what is wanted: a boot may come at any moment
        sync_folder(stage.folder)
        return {**answer, "launch": True}
    detach(stage)
    return answer


def take_order() -> tuple[Json, Json]:
    """Return what is asked for on stdin: a stage's spec, alone or with a list of revocations."""
    order: Json = json.load(sys.stdin)
    return (order["spec"], order.get("revocations") or {}) if "spec" in order else (order, {})


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
            [sys.executable, *ISOLATED, __file__, "run", str(stage.job), stage.name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # the controller's connection may go, the stage stays
        )
        assert child.stdout is not None
        if child.stdout.readline().strip() != b"started":
            code = child.wait()
            said = (stage.folder / "supervisor.log").read_text().strip() or "It did not start."
            raise gate.GateError(code, said) if code in REFUSALS else StageError(said)


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
    keys = ["seconds", "exit_code", "message", "iterations", "complete", "ended"]
    keys += ["consents", "engine", "sources", "inputs", "outputs"]
    return {
        "alive": alive,
        "progress": read_json(stage.folder / "progress.json"),
        **{key: stage.state.get(key) for key in keys},
        "code": stage.state.get("refused"),
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
    if unit:  # a job of this name in another folder has the same units
        answer["stages"] = [stage.name for stage in stages if stage.name in stopped or stage.alive()]
    return answer


def purge_jobs(jobs: Path, ids: list[str], check: bool) -> Json:
    """Remove what was made on these consents in all jobs; who has units ends those before, told which by `check`."""
    answer: Json = {"changed": False, "removed": {}, "stopped": []}
    errors = []
    for job in sorted(jobs.iterdir()):
        # What does not end is in nobody's way, and whatever is wrong with one job is in that of no other.
        for step in (look_for_purge,) if check else (look_for_purge, stop_for_purge, remove_for_purge):
            try:
                step(job, ids, answer)
            except Exception as error:
                errors.append(f"{job.name}: {sentence(error, job)}")
            if job.name not in answer["removed"]:
                break
    answer["changed"] = any(answer["removed"].values()) or bool(answer["stopped"])
    if errors and not check:  # who looks will do it all the same
        raise StageError(f"Not all could be purged; mend this and do it again: {' '.join(errors)}")
    return answer


def look_for_purge(job: Path, ids: list[str], answer: Json) -> None:
    """Tell what would be removed from a job, if it had one of these consents."""
    if purge.had(job, ids):
        answer["removed"][job.name] = purge.what(job, ids)


def stop_for_purge(job: Path, _: list[str], answer: Json) -> None:
    """End what runs in a job whose consent was revoked."""
    answer["stopped"] += [f"{job.name}/{name}" for name in stop(job, None)["stopped"]]


def remove_for_purge(job: Path, ids: list[str], answer: Json) -> None:
    """Remove what was made in it."""
    answer["removed"][job.name] = purge.remove(job, ids)


def wanted(jobs: Path) -> Json:
    """Return job and stage of everything that is to go on after a boot."""
    return {"stages": [[mark.parts[-4], mark.parts[-2]] for mark in sorted(jobs.glob("*/stages/*/wanted"))]}


def code_of(error: Exception) -> int:
    """Return the exit code for an error: a refusal has its own."""
    return int(getattr(error, "code", 1)) if isinstance(error, StageError) else 1


def take_gate() -> None:
    """Import what most verbs need, and `status` does not, which is asked for every second."""
    for name in ("gate", "purge"):
        globals()[name] = importlib.import_module(name)


def main() -> int:
    """Parse the command line and answer in JSON; errors are one sentence in `error`, with the `code` of a refusal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    one_stage, no_stage = ("start", "run", "status"), ("go_on", "stop", "wanted", "released")
    parser.add_argument("verb", choices=[*one_stage, *no_stage, "purge"])
    parser.add_argument("place", type=Path)
    parser.add_argument("words", nargs="*", metavar="STAGE or ID")
    parser.add_argument("--check", action="store_true", help="start, purge: say what would be done, and do nothing")
    parser.add_argument("--unit", choices=["idle", "busy", "pending"], help="what the stage's unit does")
    options = parser.parse_args()
    place = options.place.expanduser().absolute()
    number = len(options.words)
    if number != (options.verb in one_stage) if options.verb != "purge" else not number:
        parser.error(f"{options.verb} takes {'no' if options.verb in no_stage else 'a'} STAGE or ID")
    stage_name = options.words[0] if number else ""
    try:
        if options.verb not in ("status", "stop", "wanted"):
            take_gate()
        if options.verb == "run":
            stage = Stage(place, stage_name)
            return stage.run(stage.take_locks())
        if options.verb == "go_on":
            return Stage(place.parent, place.name).go_on()
        if options.verb == "start":
            answer = start(place, stage_name, options.check, options.unit)
        elif options.verb == "status":
            answer = status(place, stage_name, options.unit)
        elif options.verb == "stop":
            answer = stop(place, options.unit)
        elif options.verb == "released":
            answer = gate.released(place)
        elif options.verb == "purge":
            answer = purge_jobs(place, options.words, options.check)
        else:
            answer = wanted(place)
    except Exception as error:
        text, code = sentence(error, place), code_of(error)
        if options.verb in ("run", "go_on"):
            print(text, file=sys.stderr)
        else:
            print(json.dumps({"error": text, **({"code": code} if code > 1 else {})}))
        return code
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
