"""What is removed from the jobs of a host when a consent is revoked: media, faces, models, frames and results.

With them go the record and the picture of who revoked. What stays is the other person's, and a `revoked.json` that
says what happened, so that nobody wonders.
Standard library only, Python 3.9 or newer.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from records import read_json, write_json

# A stage's own records hold words, numbers and digests, and no picture of anybody.
KEPT = frozenset({"consent", "stages", "start.lock", "revoked.json", "revoked.yml", "revoked.yml.sig"})
KEPT_OF_A_STAGE = frozenset({"spec.json", "state.json", "progress.json", "lock", "supervisor.lock", "losses.csv"})


def jobs_of(jobs: Path, ids: Sequence[str]) -> list[Path]:
    """Return the jobs in which something was or may be made on these consents."""
    found = [path for path in sorted(jobs.glob("*")) if path.is_dir()]  # a link's, too
    return [job for job in found if set(ids) & set(ids_of(job))]


def ids_of(job: Path) -> Iterator[str]:
    """Yield the ids of all consents that a job had, by its records and by what was made on them."""
    for record in job.glob("consent/?.yml"):
        yield from _ids_in(record)
    for pattern in ("stages/*/made.json", "stages/*/state.json", "superseded/*/made.json", "superseded/*/state.json"):
        for path in job.glob(pattern):
            consents = read_json(path).get("consents") or {}
            yield from (str(one.get("id")) for one in consents.values() if isinstance(one, dict))


def _ids_in(record: Path) -> list[str]:
    """Return the ids in a record, no matter who signed it, or whether it can be read as a whole."""
    return re.findall(r'^id: "([^"\\]*)"', record.read_text(encoding="utf-8", errors="replace"), re.M)


def what(job: Path, ids: Sequence[str]) -> list[str]:
    """Return what would be removed from a job."""
    sides = [record.stem for record in job.glob("consent/?.yml") if set(ids) & set(_ids_in(record))]
    found = [path for side in sides for path in job.glob(f"consent/{side}.*")]
    found += [path for path in job.iterdir() if path.name not in KEPT]
    found += [path for path in job.glob("stages/*/*") if path.name not in KEPT_OF_A_STAGE]
    return sorted(str(path.relative_to(job)) for path in found)


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
        known = [[str(one) for one in before.get(key) or []] for key in ("ids", "removed")]
        word = {"ids": sorted({*known[0], *ids}), "removed": sorted({*known[1], *gone})}
        write_json(job / "revoked.json", {**word, "time": time.time()})
    if kept:
        raise kept[0][1]
    return names


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
