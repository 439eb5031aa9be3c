"""Versions of a model: copies that are whole, tried, and put back where the model's own files are broken.

`STAGE/checkpoints/ITERATIONS/` holds the files of one save and `version.json`: `loads` is true when the engine could
load it, false when not, null when nobody tried. An engine rewrites its files in place, so a hard link would be
spoilt with them: a version shares blocks with the model where the file system can, and is a copy elsewhere.

Standard library only, Python 3.9 or newer.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import shutil
import struct
import subprocess
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from records import Json, is_full, read_json, sync_folder, write_json

FICLONE = 0x40049409  # linux/fs.h: share the blocks of a file
CHECK_SECONDS = 900.0
CANNOT_BE_LOADED = 65  # the check's exit code for its verdict; any other one tells of the check, not of the model
UNSTEADY = 3  # so many saves in a row that changed while they were copied are worth a word
SPARE_BYTES = 256 * 2**20
ARCHIVES = (".keras", ".npz")  # models of Faceswap, and of the built-in engine: both are zip archives
STATE = "_state.json"
RECORD = "version.json"


def state_file(model: Path) -> Path | None:
    """Return the file that counts the iterations of the model in a folder."""
    return next(iter(sorted(model.glob(f"*{STATE}"))), None)


def iterations_of(model: Path) -> int:
    """Return the iterations of the model in a folder, 0 where it has none, or where its state cannot be read."""
    state = state_file(model)
    done = read_json(state).get("iterations", 0) if state else 0
    return done if isinstance(done, int) else 0


def is_part(name: str) -> bool:
    """Tell whether a file belongs to a model: not its logs, the engine's backup, or what strayed into its folder."""
    return name.endswith((*ARCHIVES, STATE))


def files_of(model: Path) -> list[Path]:
    """Return the files that make up a model."""
    found = model.iterdir() if model.is_dir() else ()
    return sorted(path for path in found if is_part(path.name) and path.is_file())


def files_in(record: Json) -> list[str]:
    """Return the names of the files of a model that a version's record tells."""
    return [name for name in record.get("files", []) if is_part(name)]


def marks(model: Path) -> list[tuple[str, int, int]]:
    """Return what changes with each save: names, times and sizes of a model's files."""
    stats = [(path.name, path.stat()) for path in files_of(model)]
    return [(name, stat.st_mtime_ns, stat.st_size) for name, stat in stats]


def damage(model: Path, known: Sequence[str] = (), thorough: bool = True) -> str | None:
    """Return what is broken or missing in a model's folder, None if all is there and whole.

    `known` are names of files that it must have. Every archive's sums are read unless a quick look is asked for.
    """
    there = files_of(model)
    missing = sorted(set(known) - {path.name for path in there})
    if missing:
        return f"{missing[0]} is gone"
    for path in there:
        if path.suffix in ARCHIVES:
            try:
                with zipfile.ZipFile(path) as archive:
                    bad = archive.testzip() if thorough else None
            # What is no archive, and what fails to unpack: NotImplementedError is a RuntimeError.
            except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError):
                bad = path.name
            if bad:
                return f"{path.name} is cut short or damaged"
        else:
            try:
                json.loads(path.read_text(encoding="utf-8"))["iterations"]
            except (OSError, ValueError, KeyError, TypeError):
                return f"{path.name} cannot be read"
    return None


def copy(source: Path, target: Path, over: Callable[[], bool] = lambda: False) -> None:
    """Copy a file, sharing its blocks where the file system can, and have it outlast a power failure.

    It is left off in the middle once it is `over`.
    """
    with source.open("rb") as old, target.open("wb") as new:
        try:
            fcntl.ioctl(new.fileno(), FICLONE, old.fileno())
        except OSError:
            while not over() and (block := old.read(1 << 20)):
                new.write(block)
        new.flush()
        os.fsync(new.fileno())


class Versions:
    """The versions of one model: `keep` of them stay. `check` is the command that tries to load a folder, if any.

    Copies and checks that are under way are left off once the stage is `stopped`.
    """

    def __init__(
        self,
        stage: Path,
        model: Path,
        keep: int,
        check: list[str],
        environment: dict[str, str],
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.folder = stage / "checkpoints"
        self._model, self._keep, self._check, self._environment = model, keep, check, environment
        self._stopped = stopped
        self._worker: threading.Thread | None = None
        self._ending = False
        self._no_room_told = False
        self._unsteady: set[int] = set()
        self.said: list[str] = []  # for the log, which is another thread's

    # -- what is there -----------------------------------------------------------------------------------

    def kept(self) -> list[Path]:
        """Return the versions, the newest first."""
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted((path for path in found if path.name.isdigit()), key=lambda path: -int(path.name))

    def known_files(self) -> list[str]:
        """Return the names of the files that a whole model has, as far as there is a version to tell."""
        return next((files_in(read_json(version / RECORD)) for version in self.kept()), [])

    def clear_leftovers(self) -> None:
        """Finish or remove what a kill left half made."""
        restored = self._model.with_name(self._model.name + ".restored")
        if restored.exists() and not self._model.exists():
            restored.replace(self._model)  # it was whole before the broken one was moved away
        for path in [*self.folder.glob("*.new"), restored]:
            shutil.rmtree(path, ignore_errors=True)

    # -- making one --------------------------------------------------------------------------------------

    def look(self) -> None:
        """Make a version in the background if the engine saved since the newest, and none is being made."""
        if self._worker and self._worker.is_alive():
            return
        done = self._not_kept()
        if done:
            self._worker = threading.Thread(target=self._work, args=(done,), daemon=True)
            self._worker.start()

    def close(self) -> None:
        """Let go of what is under way, and keep what a training that was not stopped has saved at its end."""
        self._ending = True
        if self._worker:
            self._worker.join()
        self._ending = False
        done = self._not_kept()
        if done and not self._stopped():
            self._work(done, check=False)  # who needs it tries it out

    def _not_kept(self) -> int:
        """Return the iterations of the model if it is to have a version and has none, else 0."""
        done, kept = iterations_of(self._model), self.kept()
        return done if self._keep > 0 and done > (int(kept[0].name) if kept else 0) else 0

    def _over(self) -> bool:
        return self._ending or self._stopped()

    def _work(self, done: int, check: bool = True) -> None:
        try:
            version = self._copy(done)
            if version:
                self._try_out(version, check)
                self._prune()
        except OSError as error:
            if not is_full(error):
                self.said.append(f"No version of the model was made ({error}).")
            self._tell_no_room(is_full(error))

    def _tell_no_room(self, full: bool) -> None:
        if full and not self._no_room_told:
            self.said.append("There is no room for versions of the model: training goes on without new ones.")
        self._no_room_told = full

    def _copy(self, done: int) -> Path | None:
        """Return a new version, or None if there is no room or the engine saved again meanwhile."""
        before = marks(self._model)
        size = sum(row[2] for row in before)
        # The engine's next save needs its room first: Faceswap may write three times as much at its end.
        self._tell_no_room(full := shutil.disk_usage(self._model).free < 4 * size + SPARE_BYTES)
        if full:
            return None
        new, version = self.folder / f"{done}.new", self.folder / str(done)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        try:
            names = [name for name, _, _ in before]
            for name in names:
                copy(self._model / name, new / name, self._over)
                if self._over():
                    return None
            broken = damage(new)
            if marks(self._model) != before or iterations_of(new) != done:
                self._tell_unsteady(done)
                return None  # the next save is as good
            self._unsteady.clear()
            record: Json = {"iterations": done, "made": time.time(), "files": names}
            write_json(new / RECORD, {**record, "loads": False, "reason": broken} if broken else record)
            new.replace(version)
            sync_folder(self.folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        return version

    def _tell_unsteady(self, done: int) -> None:
        self._unsteady.add(done)
        if len(self._unsteady) == UNSTEADY:
            self.said.append("The engine saves again before a version of the model is copied: save it more rarely.")

    def _try_out(self, version: Path, check: bool) -> None:
        record = read_json(version / RECORD)
        loads, reason = record.get("loads"), record.get("reason")
        if loads is None and check and not self._over():
            # A kilobyte in the file may be one and a half in memory; the training has the first claim on it.
            need = 2 * sum(path.stat().st_size for path in files_of(version)) + 2**30
            loads, reason = self.loads(version) if available_memory() > need else (None, None)
            if loads is not None or not self._over():
                write_json(version / RECORD, {**record, "loads": loads, "reason": reason})
        if loads is False:
            self.said.append(f"The model as saved at {version.name} iterations cannot be loaded ({reason}).")

    def loads(self, folder: Path) -> tuple[bool | None, str | None]:
        """Have the engine load the model in a folder; (None, None) if that cannot be told."""
        if not self._check:
            return None, None
        words = ["nice", "-n", "19", *self._check, str(folder)]
        environment = {**self._environment, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        with contextlib.suppress(OSError):
            trial = subprocess.Popen(
                words,
                cwd=folder.parent,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            with contextlib.suppress(OSError):  # where memory runs out, the training is the last to be ended
                Path(f"/proc/{trial.pid}/oom_score_adj").write_text("1000")
            said = self._wait_for(trial)
            if trial.returncode == 0:
                return True, None
            if trial.returncode == CANNOT_BE_LOADED:
                return False, (said.strip().splitlines() or ["the engine does not say why"])[-1].rstrip(".")
        return None, None

    def _wait_for(self, trial: subprocess.Popen[str]) -> str:
        """Return what a check said until its end, which is near once it takes too long, or the stage ends."""
        deadline = time.monotonic() + CHECK_SECONDS
        while True:
            try:
                return trial.communicate(timeout=1.0)[1]
            except subprocess.TimeoutExpired:
                if self._over() or time.monotonic() > deadline:
                    trial.kill()

    def _prune(self) -> None:
        """Keep so many versions that are not known to be bad, and the newest bad one."""
        good = bad = 0
        for version in self.kept():
            fine = read_json(version / RECORD).get("loads") is not False
            good, bad = good + fine, bad + (not fine)
            if (good if fine else bad) > (self._keep if fine else 1):
                remove(version)

    # -- putting one back --------------------------------------------------------------------------------

    def put_back(self, superseded: Path) -> int | None:
        """Replace the model by its newest version that is whole; return its iterations, None if there is none.

        The broken model is kept. A kill at any moment leaves the old model, the new one, or none, which is
        taken for a broken one the next time.
        """
        for source in self._whole():
            if self._stopped():
                break
            new = self._model.with_name(self._model.name + ".restored")
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
            for path in files_of(source):
                copy(path, new / path.name)
            sync_folder(new)
            self.set_aside(superseded)
            new.replace(self._model)
            sync_folder(self._model.parent)
            self.clear_leftovers()
            self.forget_newer(iterations_of(self._model))
            return iterations_of(self._model)
        return None

    def _whole(self) -> Iterator[Path]:
        """Yield what can be put back, the best first: versions, the engine's backup, what was condemned but loads."""
        for condemned in (False, True):
            for source in itertools.chain(self.kept(), () if condemned else self._backups()):
                record = read_json(source / RECORD)
                loads = record.get("loads")
                if (loads is False) != condemned or damage(source, files_in(record)):
                    continue
                if loads or self.loads(source)[0] is not False:
                    yield source

    def _backups(self) -> Iterator[Path]:
        """Yield a folder with the engine's own backup (Faceswap's `.bk` files), if the model has one."""
        folder = self.folder / "backup.new"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path in self._model.glob("*.bk"):
            copy(path, folder / path.stem)
        if state_file(folder):
            yield folder
        shutil.rmtree(folder, ignore_errors=True)

    def set_aside(self, superseded: Path, versions: bool = False) -> None:
        """Keep the broken model where it is in nobody's way; with its `versions`, if a new model is begun."""
        number = 1
        while (kept := superseded / f"train-broken-{number}").exists():
            number += 1
        for path in [self._model, *([self.folder] if versions else [])]:
            if path.exists():
                kept.mkdir(parents=True, exist_ok=True)
                path.replace(kept / path.name)

    def forget_newer(self, done: int) -> None:
        """Remove versions of more iterations than the model has: they were found to be broken."""
        for version in self.kept():
            if int(version.name) > done:
                remove(version)


def remove(version: Path) -> None:
    """Remove a version; a kill never leaves half of it under its name."""
    shutil.rmtree(version.replace(version.with_name(f"{version.name}.new")), ignore_errors=True)


def available_memory() -> int:
    """Return the bytes of memory that the host can give without swapping; a lot where that is unknown."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 2**62
