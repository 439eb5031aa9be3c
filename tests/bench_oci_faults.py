"""What troubles cost: a full domain a few seconds, and nothing else anything. `make bench-oci-faults` runs it.

Prints `name value limit ok|short` for each figure and fails when one is short; what is not as it must be is told
below. It plays every scenario alone and every two that can meet, which takes about a quarter of an hour.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from oci_faults import Case, Outcome, Stage, interruptions, on_stages, one_stage, pairs, singles

REPEATS = 3
# Any domain of us-ashburn-1 has it.
SMALL = {"oci_instance_shapes": ["VM.Standard.E5.Flex"], "oci_instance_ocpus": 1, "oci_instance_memory_gb": 16}
THREE_SHAPES = {**SMALL, "oci_instance_shapes": ["VM.GPU.A10.1", "VM.GPU3.1", "VM.Standard.E5.Flex"]}
TRIES = 9  # three shapes in three domains
TOO_MANY = {"operation": "LaunchInstance", "status": 429, "code": "TooManyRequests", "message": "Too many requests."}
FULL = {
    "operation": "LaunchInstance",
    "where": {"availabilityDomain": "Uocm:US-ASHBURN-AD-1"},
    "times": None,
    "status": 500,
    "code": "InternalError",
    "message": "Out of host capacity.",
}
FAR = {"operation": "*", "effect": "none", "delay": 0.2, "times": None}  # as a real line


def good(done: subprocess.CompletedProcess[str]) -> str:
    """The output of a play, which must have ended well."""
    if done.returncode:
        raise SystemExit(done.stdout)
    return done.stdout


def seconds(action: Callable[[], Any]) -> float:
    """How long it takes, in seconds of wall time."""
    began = time.monotonic()
    action()
    return time.monotonic() - began


def made(stage: Stage, faults: list[dict[str, Any]], domain: str) -> float:
    """Seconds to an instance that answers by SSH, among these faults; it must come to be in this domain."""
    stage.cloud.post("faults", faults)
    taken = seconds(lambda: good(stage.play("main", SMALL)))
    stage.cloud.post("faults", [])
    [instance] = [row["id"] for row in stage.cloud.alive() if row["kind"] == "instance"]
    shape, found = stage.place(instance)
    if (shape, found[-4:]) != ("VM.Standard.E5.Flex", domain):
        raise SystemExit(f"the instance is a {shape} in {found}, and not in {domain}")
    good(stage.play("destroy", SMALL))
    return taken


def planned(stage: Stage, faults: list[dict[str, Any]]) -> float:
    """Seconds for the plan of three shapes in three domains."""
    stage.cloud.post("faults", faults)
    said = ""

    def plan() -> None:
        nonlocal said
        said = good(stage.play("plan", THREE_SHAPES))

    taken = seconds(plan)
    stage.cloud.post("faults", [])
    rows = [line for line in said.splitlines() if line.lstrip().startswith(("- ", *"123456789")) and "-AD-" in line]
    if len(rows) != TRIES or stage.cloud.alive():
        raise SystemExit(f"this is no plan of {TRIES} tries:\n{said}")
    return taken


def all_of(cases: list[Case], folder: Path) -> list[Outcome]:
    """Play the cases; tell how far it is, where somebody looks on."""
    found = []
    with on_stages(cases, folder) as outcomes:
        for number, outcome in enumerate(outcomes, 1):
            found.append(outcome.result())
            if sys.stderr.isatty():
                print(f"\r{number}/{len(cases)} cases", end="", file=sys.stderr, flush=True)
    return found


def main() -> int:
    """Measure and print; 0 when every figure holds."""
    with tempfile.TemporaryDirectory() as name, one_stage(Path(name)) as stage:
        good(stage.play("plan", THREE_SHAPES))  # warms the page cache
        rounds = [
            (
                made(stage, [], "AD-1"),
                made(stage, [TOO_MANY, FULL], "AD-2"),
                planned(stage, []),
                planned(stage, [FAR]),
            )
            for _ in range(REPEATS)  # in turns, so that other work on the machine meets all of them alike
        ]
    plain, failover, plan, far_plan = (statistics.median(column) for column in zip(*rounds, strict=True))
    alone, together = [*singles(), *interruptions()], pairs()
    with tempfile.TemporaryDirectory() as name:
        outcomes = all_of([*alone, *together], Path(name))
    extra = failover - plain
    counts = [
        ("duplicates", sum(one.duplicates for one in outcomes)),
        ("leaks", sum(one.leaks for one in outcomes)),
        ("tracebacks", sum(one.tracebacks for one in outcomes)),
        ("faults_that_never_struck", sum(len(one.unmet) for one in outcomes)),
        ("other_than_it_must_be", sum(bool(one.wrong) for one in outcomes)),
    ]
    rows = [
        ("nothing_to_reachable", f"{plain:.2f}s", "-", True),
        ("failover_extra_seconds", f"{extra:.2f}s", "4s", extra <= 4),
        ("plan_3_shapes_3_domains", f"{plan:.2f}s", "6s", plan <= 6),
        ("plan_when_each_answer_takes_0.2s", f"{far_plan:.2f}s", "-", True),
        ("single_faults", str(len(alone)), "20", len(alone) >= 20),
        ("fault_pairs", str(len(together)), "30", len(together) >= 30),
        *((figure, str(count), "0", count == 0) for figure, count in counts),
    ]
    for figure, value, bar, held in rows:
        print(figure, value, bar, "ok" if held else "short")
    for outcome in outcomes:
        if not outcome.good:
            print(f"# {outcome}")
    return 0 if all(held for *_, held in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
