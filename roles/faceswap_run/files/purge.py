"""What is removed from the jobs of a host when a consent is revoked: media, faces, models, frames and results.

With them go the record and the picture of who revoked. What stays is the other person's, and a `revoked.json` that
says what happened, so that nobody wonders.
Standard library only, Python 3.9 or newer.
"""

from __future__ import annotations

import json
import re
import shutil
import stat
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from records import StageError, read_json, write_json

# A stage's own records hold words, numbers and digests, and no picture of anybody.
KEPT = frozenset({"consent", "stages", "start.lock", "revoked.json", "revoked.yml", "revoked.yml.sig"})
KEPT_OF_A_STAGE = frozenset({"spec.json", "state.json", "progress.json", "lock", "supervisor.lock", "losses.csv"})


def had(job: Path, ids: Collection[str]) -> bool:
    """Tell whether something was or may be made in a job on one of these consents.

    StageError where no record of it says so, and one cannot be read.
    """
    unreadable = ""
    if not stat.S_ISDIR(job.stat().st_mode):  # a link's, too
        return False
    for path in _records(job):
        try:
            if any(one in ids for one in _ids_in(path)):
                return True
        except Exception as error:  # whatever somebody put there
            unreadable = unreadable or f"{path}: {type(error).__name__}"
    if unreadable:
        raise StageError(f"Whose consents it had cannot be read ({unreadable}): mend that, or delete the job.")
    return False


def _records(job: Path) -> Iterator[Path]:
    """Yield what tells of a job's consents, and each part that is no folder or cannot be read, unlike `glob`."""
    stages = [path for part in ("stages", "superseded") for path in _inside(job / part)]
    for folder, names in [(job / "consent", r".\.yml"), *((stage, r"(made|state)\.json") for stage in stages)]:
        yield from (path for path in _inside(folder) if path == folder or re.fullmatch(names, path.name))


def _ids_in(path: Path) -> list[str]:
    """Return the ids in a record of consent, no matter who signed it, or in one of what was made."""
    if not path.is_file() and path.exists():  # a pipe would have it wait for ever
        raise IsADirectoryError
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".yml":
        return re.findall(r'^id: "([^"\\]*)"', text, re.M)
    return [str(one["id"]) for one in (json.loads(text).get("consents") or {}).values()]


def what(job: Path, ids: Sequence[str]) -> list[str]:
    """Return what would be removed from a job."""
    consent = job / "consent"
    found = [path for path in _inside(consent) if path == consent or _is_theirs(path, ids)]
    found += _inside(job, KEPT)
    found += [path for stage in _inside(job / "stages") for path in _inside(stage, KEPT_OF_A_STAGE)]
    return sorted({str(path.relative_to(job)) for path in found})


def _inside(folder: Path, kept: Collection[str] = ()) -> list[Path]:
    """Return what is in a folder but for what is kept; itself where it cannot be read, as its removal will tell."""
    try:
        return [path for path in folder.iterdir() if path.name not in kept]
    except FileNotFoundError:
        return []
    except OSError:
        return [folder]


def _is_theirs(path: Path, ids: Collection[str]) -> bool:
    """Tell whether a file beside a job's records belongs to a record of these, or to one that cannot be read."""
    try:
        return any(one in ids for one in _ids_in(path.with_name(f"{path.name.partition('.')[0]}.yml")))
    except FileNotFoundError:
        return False
    except OSError:
        return True


def remove(job: Path, ids: Sequence[str]) -> list[str]:
    """Remove it, then leave word of it, also beside that of before; return what was removed.

    OSError with the first thing that could not be removed, once all else is gone.
    """
    names, kept = what(job, ids), []
    for name in names:
        try:
            _remove(job / name)
        except OSError as error:
            kept.append((name, error))
    gone = [name for name in names if name not in {name for name, _ in kept}]
    if gone:
        before = read_json(job / "revoked.json")
        word = {}
        for key, new in (("ids", ids), ("removed", gone)):
            known = before.get(key)
            word[key] = sorted({*map(str, known if isinstance(known, list) else []), *new})
        write_json(job / "revoked.json", {**word, "time": time.time()})
    if kept:
        raise kept[0][1]
    return names


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
