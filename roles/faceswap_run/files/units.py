#!/usr/bin/env python3
"""Root's half of the supervisor: each stage runs in a systemd unit, `faceswap-oci@JOB-STAGE.service`.

Standard library only, Python 3.9 or newer. It answers as supervisor.py does, whose verbs these are:

    units.py start JOB_DIR STAGE [--check]   spec on stdin; starts the unit where there is something to do
    units.py status JOB_DIR STAGE            alive also while the unit waits for its next try, or for the boot
    units.py stop JOB_DIR                    saves and ends whatever runs in this job
    units.py released JOB_DIR                what is to be signed
    units.py purge JOBS ID...                ends what runs on these consents, and removes what was made on them
    units.py resume JOBS                     starts again what a shutdown or a crash cut off; called at the boot

A list of revocations that comes with a start is kept in root's folder of trust, if it is signed and newer.

Root neither reads nor writes below the folder JOBS: whatever is done there is done by supervisor.py as the owner of
that folder, who is also the user of the units.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import pwd
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True

import consent  # noqa: E402  # it is found only now

Json = dict[str, Any]

SUPERVISOR = Path(__file__).resolve().with_name("supervisor.py")
RESUME = "faceswap-oci-resume.service"
PLAIN = frozenset(string.ascii_letters + string.digits + ":_.")


class UnitError(Exception):
    """A cause and a remedy in one sentence, for the user, with the exit code of a refusal."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


def unit_name(job: str, stage: str) -> str:
    r"""Return the unit of a stage, escaped as systemd-escape(1) does it.

    >>> print(unit_name("anna-as.b", "extract_a"))
    faceswap-oci@anna\x2das.b-extract_a.service
    """
    job, stage = (
        "".join(c if c in PLAIN else "".join(f"\\x{byte:02x}" for byte in c.encode()) for c in word)
        for word in (job, stage)
    )
    return f"faceswap-oci@{job}-{stage}.service"


def systemctl(*words: str) -> str:
    """Return what systemctl prints; UnitError with its last line where it fails."""
    try:
        done = subprocess.run(["systemctl", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise UnitError('There is no systemd on this host: set faceswap_run_user to "".') from error
    if done.returncode:
        reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise UnitError(f"systemd refused `systemctl {' '.join(words)}` ({reason}): mend that and run it again.")
    return done.stdout


def look_at(unit: str) -> tuple[str, bool]:
    """Return a unit's ActiveState, and whether systemd is about to start or stop it."""
    lines = systemctl("show", "--property=ActiveState,Job", unit).splitlines()
    shown = dict(line.partition("=")[::2] for line in lines)
    return shown["ActiveState"], shown.get("Job", "") not in ("", "0")


def at_work(unit: str) -> bool:
    """Tell whether a unit runs, begins, ends, or waits for its next try."""
    state, job = look_at(unit)
    return job or state not in ("inactive", "failed")


def unit_state(unit: str) -> str:
    """Return busy, pending where a boot will bring back what is wanted, or idle."""
    # The boot's unit first: it may do its work between the two looks. Then it stays active, until the shutdown.
    state, job = look_at(RESUME)
    if at_work(unit):
        return "busy"
    if job or state in ("activating", "deactivating"):
        return "pending"
    # The exit code tells only whether all is well.
    system = subprocess.run(["systemctl", "is-system-running"], stdin=subprocess.DEVNULL, capture_output=True)
    return "pending" if system.stdout.strip() == b"stopping" else "idle"


def ask_supervisor(jobs: Path, *words: str, order: str | None = None) -> Json:
    """Return the supervisor's answer, asked as the owner of `jobs`; UnitError with its sentence if it refuses."""
    try:
        owner = pwd.getpwuid(jobs.stat().st_uid)
    except (FileNotFoundError, KeyError) as error:
        raise UnitError(f"{jobs} is missing or has no owner: run faceswap_run again to make it.") from error
    other: Json = {}
    if owner.pw_uid != os.geteuid():
        groups = os.getgrouplist(owner.pw_name, owner.pw_gid)
        other = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": groups, "umask": 0o027}
    done = subprocess.run(
        # Byte code that lies about beside the programs has no say.
        [sys.executable, "-I", "-B", "-X", "pycache_prefix=/nonexistent", str(SUPERVISOR), *words],
        input=order,
        capture_output=True,
        text=True,
        cwd="/",
        env={"PATH": os.environ["PATH"], "HOME": "/", "LANG": "C.UTF-8"},
        **other,
    )
    try:
        answer: Json = json.loads(done.stdout)
    except ValueError as error:
        raise UnitError(f"The supervisor did not answer: {done.stderr.strip()[-500:]}") from error
    if "error" in answer:
        raise UnitError(answer["error"], answer.get("code", 1))
    return answer


@contextlib.contextmanager
def alone(job: Path) -> Iterator[None]:
    """Wait until nobody else starts a stage of the job; hashing its inputs takes minutes."""
    name = unit_name(job.name, "start").replace(".service", ".lock")
    path = Path(os.environ.get("RUNTIME_DIRECTORY", "/run")) / name
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def start(job: Path, stage: str, check: bool) -> Json:
    """Bring a stage to its end: nothing to do, join the unit that runs, or start it."""
    if check and not job.parent.exists():
        return {"changed": True, "running": False, "reason": "it was never run", "command": []}
    unit = unit_name(job.name, stage)
    flags = ["--check"] if check else []
    order = sys.stdin.read()
    if not check:
        keep_revocations(order)
    answer = ask_supervisor(job.parent, "start", str(job), stage, "--unit", unit_state(unit), *flags, order=order)
    if answer.pop("launch", False):
        if systemctl("show", "--property=LoadState", "--value", unit).strip() != "loaded":
            raise UnitError(f"systemd does not know {unit}: run faceswap_run again, which installs it.")
        # A person's start counts anew how often it was killed. It fails where there is nothing to count.
        with contextlib.suppress(UnitError):
            systemctl("reset-failed", unit)
        systemctl("start", unit)
    return answer


def keep_revocations(order: str) -> None:
    """Keep the list of revocations that came with an order; UnitError where it is not signed by who is trusted."""
    with contextlib.suppress(ValueError):
        revocations = json.loads(order).get("revocations")
        if revocations:
            try:
                consent.keep_revocations(revocations["text"].encode(), revocations["sig"].encode())
            except consent.ConsentError as error:
                raise UnitError(str(error), error.code) from None


def purge(jobs: Path, ids: list[str]) -> Json:
    """End what runs in the jobs that had one of these consents, and remove what was made there."""
    stopped, errors = [], []
    for job in ask_supervisor(jobs, "purge", str(jobs), *ids, "--check")["removed"]:
        try:
            stopped += [f"{job}/{stage}" for stage in stop(jobs / job)["stopped"]]
        except (UnitError, OSError) as error:  # what does not end is in nobody's way
            errors.append(f"{job}: {error}")
    try:
        answer = ask_supervisor(jobs, "purge", str(jobs), *ids)
    except UnitError as error:
        errors.append(str(error))
    if errors:
        raise UnitError(" ".join(errors))
    return {
        **answer,
        "changed": answer["changed"] or bool(stopped),
        "stopped": sorted({*stopped, *answer["stopped"]}),
    }


def stop(job: Path) -> Json:
    """Save and end whatever runs in this job."""
    # It names the stages that this job wants or works on: another folder's job of its name has the same units.
    answer = ask_supervisor(job.parent, "stop", str(job), "--unit", "idle")
    running = [stage for stage in answer["stages"] if at_work(unit_name(job.name, stage))]
    if running:
        systemctl("stop", *(unit_name(job.name, stage) for stage in running))
    stopped = sorted({*answer["stopped"], *running})
    return {"changed": bool(stopped), "stopped": stopped}


def resume(jobs: Path) -> Json:
    """Have systemd start the units of all stages that are wanted."""
    stages = ask_supervisor(jobs, "wanted", str(jobs))["stages"]
    if stages:
        systemctl("start", "--no-block", *(unit_name(job, stage) for job, stage in stages))
    return {"changed": bool(stages), "resumed": stages}


def main() -> int:
    """Parse the command line and answer in JSON; errors are one sentence in `error`, with the `code` of a refusal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["start", "status", "stop", "resume", "released", "purge"])
    parser.add_argument("place", type=Path)
    parser.add_argument("words", nargs="*", metavar="STAGE or ID")
    parser.add_argument("--check", action="store_true", help="start: say what would be done, and do nothing")
    options = parser.parse_args()
    place, number = options.place.absolute(), len(options.words)
    one_stage = options.verb in ("start", "status")
    if number != one_stage if options.verb != "purge" else not number:
        parser.error(f"{options.verb} takes {'a' if one_stage or options.verb == 'purge' else 'no'} STAGE or ID")
    stage = options.words[0] if number else ""
    try:
        if options.verb == "start":
            with alone(place):
                answer = start(place, stage, options.check)
        elif options.verb == "status":
            unit = unit_state(unit_name(place.name, stage))
            answer = ask_supervisor(place.parent, "status", str(place), stage, "--unit", unit)
        elif options.verb == "stop":
            answer = stop(place)
        elif options.verb == "released":
            answer = ask_supervisor(place.parent, "released", str(place))
        elif options.verb == "purge":
            answer = purge(place, options.words)
        else:
            answer = resume(place)
    except (UnitError, OSError) as error:
        text, code = str(error), error.code if isinstance(error, UnitError) else 1
        if isinstance(error, OSError):
            text = f"The host refused a file ({text.split('] ', 1)[-1]}): mend that, and run it again."
        print(json.dumps({"error": text, **({"code": code} if code > 1 else {})}))
        return code
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
