"""Figures of the real Faceswap on a CPU: `name value limit ok|short`, exit 1 if one is short. `make bench-faceswap`.

FACESWAP_SOURCE names a checkout or archive of it. It is installed by the role from pip's cache, a job is played from
both clips of the demo to a released video and judged as the demo is, and a training is ended by SIGTERM and SIGKILL.
"""

import json
import os
import re
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import upstream
import waiting
from upstream_job import Faceswap, judge

ROOT = Path(__file__).parent.parent
SAVE_INTERVAL = 10
TRAINED, CUT_AT = 30, 17  # iterations wanted, and after how many the training is ended
wait_until = partial(waiting.wait_until, seconds=600)


def figure(name: str, value: float, limit: float, unit: str = "") -> bool:
    """Print one line; a value above its limit is short of what was promised."""
    good = value <= limit
    print(f"{name} {value:.4g}{unit} {limit:g}{unit} {'ok' if good else 'short'}", flush=True)
    return good


def changes(said: str) -> int:
    """How many tasks changed something, by the recap."""
    return sum(int(count) for count in re.findall(r"changed=(\d+)", said.rpartition("PLAY RECAP")[2]))


def timed_install(engine: Path) -> tuple[float, int]:
    """Play the role of the installation; return its seconds and its changes."""
    clock = time.monotonic()
    done = upstream.install(engine)
    seconds = time.monotonic() - clock
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return seconds, changes(done.stdout)


def install(engine: Path) -> list[bool]:
    """The role from nothing (once before, so that pip has the packages), and with nothing to do."""
    timed_install(engine.with_name("warming"))
    first, _ = timed_install(engine)
    again = [timed_install(engine) for _ in range(3)]
    return [
        figure("install_seconds", first, 180, "s"),
        figure("install_again_seconds", sorted(seconds for seconds, _ in again)[1], 8, "s"),
        figure("install_again_changed", sum(changed for _, changed in again), 0),
    ]


def whole_job(faceswap: Faceswap) -> list[bool]:
    """From two clips to a released video, judged as the demo is."""
    clock = time.monotonic()
    faceswap.play()
    minutes = (time.monotonic() - clock) / 60
    job = faceswap.jobs / "swap"
    state = json.loads((job / "stages" / "train" / "state.json").read_text())
    print(f"job_minutes {minutes:.1f} - -  (training {state['seconds'] / 60:.1f}, {state['iterations']} iterations)")
    judged = judge(job)
    print(judged.stdout or judged.stderr, end="", flush=True)
    return [judged.returncode == 0, figure("job_again_changed", changes(faceswap.play()), 0)]


def read(path: Path) -> dict[str, Any]:
    """What a record says, empty before it is there."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content


def reached_at_least(stage: Path, iterations: int) -> bool:
    """Whether the training has come so far."""
    return bool(read(stage / "progress.json").get("done", 0) >= iterations)


def cut_short(faceswap: Faceswap) -> list[bool]:
    """End a training by SIGTERM to the supervisor and by SIGKILL to the engine, and go on to the total each time."""
    values: dict[str, Any] = {"faceswap_run_job": "cut", "faceswap_run_save_interval": SAVE_INTERVAL}
    stage = faceswap.jobs / "cut" / "stages" / "train"
    faceswap.play("--tags", "extract", **values)
    good = []
    for name, sent, whom, allowed in (
        ("sigterm_iterations_lost", signal.SIGTERM, "supervisor_pid", 1),
        ("sigkill_iterations_lost", signal.SIGKILL, "engine_pid", SAVE_INTERVAL),
    ):
        begun = read(stage / "state.json").get("iterations", 0)
        total = values["faceswap_run_iterations"] = begun + TRAINED
        with faceswap.playing("--tags", "train", **values) as play:
            wait_until(partial(reached_at_least, stage, begun + CUT_AT))
            reached = read(stage / "progress.json")["done"]
            os.kill(int(read(stage / "state.json")[whom]), sent)
            said, _ = play.communicate(timeout=600)
        assert play.returncode, said
        good.append(figure(name, max(0, reached - read(stage / "state.json")["iterations"]), allowed))
        faceswap.play("--tags", "train", **values)
        good.append(figure("beside_the_total_afterwards", abs(read(stage / "state.json")["iterations"] - total), 0))
    return good


def main() -> int:
    """Measure."""
    if upstream.SOURCE not in os.environ:
        print(f"bench_faceswap: {upstream.SOURCE} names no checkout of the real Faceswap", file=sys.stderr)
        return 1
    print(f"on {os.cpu_count()} CPU cores; the figures of a GPU are not among these")
    with tempfile.TemporaryDirectory(prefix="bench faceswap ") as name:
        folder = Path(name)
        engine = folder / "engine"
        good = install(engine)
        faceswap = Faceswap(engine / "engine.json", folder)
        good += [*whole_job(faceswap), *cut_short(faceswap)]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
