#!/usr/bin/env python3
"""A test double of systemd, called as `systemctl`, for tests of the supervisor's units where none runs.

It knows what the units of faceswap_run ask of it: which exits are tried again, what SIGTERM goes to, and what is
killed with the main process. Real hosts prove that systemd does the same. SYSTEMD_DOUBLE names its folder, with
`jobs`, `supervisor`, and what `is-system-running` and the boot's unit are to say.

    systemctl show | is-system-running | reset-failed | start | stop | (a shutdown's own) shutdown
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

HOME = Path(os.environ["SYSTEMD_DOUBLE"])
TRIES = 6


def state_file(unit: str) -> Path:
    return HOME / f"{unit}.json"


def read(unit: str) -> dict[str, int | str]:
    try:
        state: dict[str, int | str] = json.loads(state_file(unit).read_text())
    except FileNotFoundError:
        state = {"ActiveState": "inactive", "Job": ""}
    return state


def write(unit: str, **state: int | str) -> None:
    new = state_file(unit).with_suffix(".new")
    new.write_text(json.dumps(state))
    new.replace(state_file(unit))


def keep(unit: str) -> None:
    """What systemd does with the unit, from its start to its end."""
    instance = unit.removeprefix("faceswap-oci@").removesuffix(".service").replace("-", "/")
    instance = re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), instance)
    place = Path((HOME / "jobs").read_text()) / instance
    for number in range(TRIES):
        process = subprocess.Popen([(HOME / "supervisor").read_text(), "go_on", str(place)], stdin=subprocess.DEVNULL)
        write(unit, ActiveState="active", Job="", MainPID=process.pid, tries=number + 1)
        code = process.wait()
        try:
            engine = json.loads((place.parent / "stages" / place.name / "state.json").read_text()).get("engine_pid")
            os.kill(engine, signal.SIGKILL)  # KillMode: what is left of the unit
        except (OSError, TypeError):
            pass
        clean = code in (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, -signal.SIGPIPE)
        if state_file(unit).with_suffix(".stop").exists() or not (code == 75 or (code < 0 and not clean)):
            write(unit, ActiveState="failed" if code else "inactive", Job="", code=code, tries=number + 1)
            return
        write(unit, ActiveState="activating", Job="", tries=number + 1)
        time.sleep(1.5)  # RestartSec
    write(unit, ActiveState="failed", Job="", tries=TRIES)


def start(unit: str) -> None:
    if read(unit)["ActiveState"] in ("inactive", "failed"):
        state_file(unit).with_suffix(".stop").unlink(missing_ok=True)
        write(unit, ActiveState="activating", Job="1")
        subprocess.Popen(
            [sys.executable, __file__, "keep", unit],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def stop(unit: str) -> None:
    state_file(unit).with_suffix(".stop").touch()
    while (state := read(unit))["ActiveState"] not in ("inactive", "failed"):
        if "MainPID" in state:
            with contextlib.suppress(ProcessLookupError):  # it has ended, and its unit is told so right away
                os.kill(int(state["MainPID"]), signal.SIGTERM)
        time.sleep(0.1)


def main() -> int:
    verb, *words = sys.argv[1:]
    units = [word for word in words if not word.startswith("-")]
    if verb == "is-system-running":
        print((HOME / "system").read_text())
    elif verb == "shutdown":
        for path in HOME.glob("faceswap-oci@*.json"):
            stop(path.stem)
    for unit in units:
        if verb == "show":
            asked = next(word for word in words if word.startswith("--property=")).partition("=")[2].split(",")
            values = {"LoadState": "loaded", **read(unit)}
            print("\n".join(str(values[name]) if "--value" in words else f"{name}={values[name]}" for name in asked))
            if (HOME / "afterwards").exists():  # what comes to pass between two looks
                for other, state in json.loads((HOME / "afterwards").read_text()).items():
                    write(other, **state)
                (HOME / "afterwards").unlink()
        elif verb in ("start", "stop", "keep"):
            {"start": start, "stop": stop, "keep": keep}[verb](unit)
    return 0


if __name__ == "__main__":
    sys.exit(main())
