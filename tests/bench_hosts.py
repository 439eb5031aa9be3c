"""What the site costs on a real host, and what it loses when things break. `make bench-hosts` runs it; it needs root.

Prints `name value limit ok|short` for each figure and fails when one is short. How long `make test` takes is read
from what its last run in this checkout wrote down; where it has not run, that figure is short.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from testhosts.hosts import TestHosts, test_hosts
from testhosts.machine import what_is_missing

ROOT = Path(__file__).parent.parent
PROGRAMS = Path(sys.executable).parent
TIMES = ROOT / "var" / "ci-times"  # see tests/timed.sh
REPEATS = 3
FAULTS = {
    "lost_when_the_controller_is_killed": "the controller is killed",
    "lost_when_ssh_is_cut": "SSH is cut",
    "lost_when_the_host_reboots": "the host reboots",
    "lost_when_the_trainer_is_killed": "engine_pid is killed",
    "lost_when_the_supervisor_is_killed": "supervisor_pid is killed",
}


def figure(name: str, value: float, limit: float) -> bool:
    """Print one figure; return whether it holds."""
    good = value <= limit
    print(f"{name} {value:.4g} {limit:g} {'ok' if good else 'short'}", flush=True)
    return good


def executed(said: str) -> int:
    """How many tasks the host had a part in: validations are the controller's, and so is what is delegated to it."""
    tasks = [task for task in said.split("\nTASK [")[1:] if "Validating arguments" not in task]
    return sum(1 for task in tasks if re.search(r"^(ok|changed): \[one\]", task, re.M))


def play(hosts: TestHosts, folder: Path) -> tuple[float, int, int]:
    """Play site.yml on the one host; return its seconds, its changes, and the tasks that the host had a part in."""
    values = {
        "faceswap_install_engine": "builtin",
        "faceswap_run_engine": "builtin",
        "faceswap_run_trainer": "lightweight",
        "faceswap_run_job": "bench",
        "faceswap_run_out": str(folder / "out"),
        "faceswap_run_source_a": str(ROOT / "demo" / "clipA.mp4"),
        "faceswap_run_source_b": str(ROOT / "demo" / "clipB.mp4"),
        "faceswap_run_consent_a": str(ROOT / "demo" / "consent" / "a.yml"),
        "faceswap_run_consent_b": str(ROOT / "demo" / "consent" / "b.yml"),
        "faceswap_run_iterations": 8,
        "faceswap_run_batch_size": 4,
    }
    clock = time.monotonic()
    done = subprocess.run(
        [PROGRAMS / "ansible-playbook", "site.yml", "-i", hosts.inventory, "-e", json.dumps(values)],
        cwd=ROOT, env=os.environ | {"ANSIBLE_NOCOLOR": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    seconds = time.monotonic() - clock
    assert done.returncode == 0, done.stdout + done.stderr
    recap = re.search(r"^one +: ok=.* changed=(\d+)", done.stdout.rpartition("PLAY RECAP")[2], re.M)
    assert recap, done.stdout
    return seconds, int(recap[1]), executed(done.stdout)


def second_run() -> list[bool]:
    """The whole site on one host, when all of it is done already."""
    with tempfile.TemporaryDirectory(prefix="bench hosts ") as name:
        folder = Path(name)
        with test_hosts(folder / "hosts", {"one": "trixie"}) as hosts:
            seconds, changed, _ = play(hosts, folder)
            print(f"first_run {seconds:.4g} - -  (seconds; {changed} changed)")
            runs = [play(hosts, folder) for _ in range(REPEATS)]
    return [
        figure("second_run_changed", sum(changed for _, changed, _ in runs), 0),
        figure("second_run_tasks_on_the_host", max(tasks for _, _, tasks in runs), 30),
        figure("second_run_seconds", statistics.median(seconds for seconds, _, _ in runs), 25),
    ]


def faults() -> list[bool]:
    """Iterations lost to each fault, in save intervals; a fault that did not end with a finished job is short."""
    told = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "tests/test_hosts_faults.py"],
        cwd=ROOT, env=os.environ | {"REQUIRE_HOSTS": "1"}, capture_output=True, text=True,
    ).stdout  # fmt: skip
    good = []
    for name, words in FAULTS.items():
        found = re.search(rf"iterations lost when {words}: (\d+) of at most (\d+)", told)
        good.append(figure(name, int(found[1]) / int(found[2]) if found else float("inf"), 1))
    if not all(good):
        print(told)
    return good


def whole_test() -> list[bool]:
    """How long the last `make test` in this checkout took, in minutes; from nothing where it made environments."""
    rows = [line.split() for line in TIMES.read_text().splitlines()] if TIMES.exists() else []
    parts = {name: float(seconds) for name, seconds in rows}
    limit = 45 if {"venv-test", "venv-second"} & set(parts) else 25
    return [figure("make_test_minutes", parts.get("total", float("inf")) / 60, limit)]


def main() -> int:
    """Measure."""
    if lacking := what_is_missing():
        print(f"bench_hosts: {lacking}", file=sys.stderr)
        return 1
    return 0 if all([*second_run(), *faults(), *whole_test()]) else 1


if __name__ == "__main__":
    sys.exit(main())
