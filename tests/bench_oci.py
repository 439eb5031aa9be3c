"""What provisioning costs in seconds, and what fifty kills cost: nothing. `make bench-oci` runs it.

Prints `name value limit ok|short` for each figure and fails when one is short. The cloud is the emulator, which
takes 0.5 s for whatever a real one needs minutes for; everything else is real: the SDK, TLS, SSH, Ansible.
"""

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emulated_cloud import COLLECTIONS, MODULE, PARTS, EmulatedCloud, emulated_cloud

REPEATS = 5
KILLS = 50
BARE = """
import oci
from oci.core import BlockstorageClient, ComputeClient, VirtualNetworkClient
from oci.identity import IdentityClient
config = oci.config.from_file()
clients = [kind(config) for kind in (ComputeClient, VirtualNetworkClient, BlockstorageClient, IdentityClient)]
"""
PLAYBOOK = """
- hosts: localhost
  connection: local
  gather_facts: false
  vars:
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
  tasks:
    - faceswap.ops.oci_instance: "{{ lookup('ansible.builtin.file', wish) | from_json }}"
"""


class Bench:
    """One stack in one emulated cloud; `folder` holds the controller's state."""

    def __init__(self, cloud: EmulatedCloud, folder: Path) -> None:
        self.cloud = cloud
        self.folder = folder
        self.wish = {"name": "bench", "compartment_id": cloud.compartment, "state_dir": str(folder / "state")}
        self.env = cloud.env | {
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_LOCALHOST_WARNING": "False",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "False",
            "OCI_CONFIG_FILE": cloud.env["OCI_CLI_CONFIG_FILE"],
            "PYTHONPATH": str(COLLECTIONS),
        }
        (folder / "play.yml").write_text(PLAYBOOK)

    def bare(self) -> None:
        """A process that imports the SDK and makes the same clients, and no more."""
        subprocess.run([sys.executable, "-c", BARE], env=self.env, check=True)

    def play(self, state: str, expected: str) -> None:
        """The whole of ansible-playbook with the one task."""
        wish = self.folder / "wish.json"
        wish.write_text(json.dumps(self.wish | {"state": state}))
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        command = [program, str(self.folder / "play.yml"), "-e", f"wish={wish}"]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True)
        if done.returncode or f"changed={expected}" not in done.stdout:
            raise SystemExit(f"{state} did not end as it should:\n{done.stdout}{done.stderr}")

    def start(self, state: str) -> subprocess.Popen[str]:
        """The task's process alone, as Ansible starts it: what a kill is for."""
        process = subprocess.Popen(
            [sys.executable, MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.env,
            text=True,
            start_new_session=True,
        )
        assert process.stdin
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": self.wish | {"state": state}}))
        process.stdin.close()
        process.stdin = None
        return process

    def finish(self, state: str) -> None:
        """Let the task run to its end, which must be a good one."""
        said, errors = self.start(state).communicate(timeout=300)
        if json.loads(said).get("failed"):
            raise SystemExit(f"{state} after a kill failed: {said}{errors}")

    def alive(self) -> Counter[str]:
        """What exists by the emulator's own ledger, by kind."""
        return Counter(row["kind"] for row in self.cloud.alive())


def seconds(action: Callable[[], Any]) -> float:
    """How long it takes, in seconds of wall time."""
    began = time.monotonic()
    action()
    return time.monotonic() - began


def interrupted(bench: Bench, longest_s: dict[str, float], chance: random.Random) -> tuple[int, int, Counter[str]]:
    """Kill runs at random moments; return duplicates, leaks, and what was killed.

    What stands is to be removed and what does not stand is to be made, so that there is work to interrupt. A run
    that was over before its kill came does not count.
    """
    duplicates = leaks = 0
    killed: Counter[str] = Counter()
    while killed.total() < KILLS:
        state = "absent" if bench.alive() else "present"
        process = bench.start(state)
        try:
            process.wait(chance.uniform(0.3, longest_s[state]))
            continue
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        after = chance.choice(["present", "absent"])
        killed[f"{state} then {after}"] += 1
        bench.finish(after)
        alive = bench.alive()
        if after == "present":
            duplicates += sum(count - 1 for count in alive.values())
            leaks += int(set(alive) != set(PARTS))
        else:
            leaks += alive.total()
        if sys.stderr.isatty():
            print(f"\r{killed.total()}/{KILLS} kills", end="", file=sys.stderr, flush=True)
    bench.finish("absent")
    return duplicates, leaks + bench.alive().total(), killed


def main() -> int:
    """Measure and print; 0 when every figure holds."""
    seed = random.randrange(10**6)
    with tempfile.TemporaryDirectory() as name, emulated_cloud(Path(name), waiting=0.5) as cloud:
        bench = Bench(cloud, Path(name))
        bench.bare()  # warms the page cache
        rounds = []
        for _ in range(REPEATS):  # in turns, so that other work on the machine meets all of them alike
            rounds.append(
                (
                    seconds(bench.bare),
                    seconds(lambda: bench.play("present", "1")),
                    seconds(lambda: bench.play("present", "0")),
                    seconds(lambda: bench.play("absent", "1")),
                )
            )
        bare, made, unchanged, removed = (statistics.median(column) for column in zip(*rounds, strict=True))
        duplicates, leaks, killed = interrupted(bench, {"present": made, "absent": removed}, random.Random(seed))
    limit = 1.6 * bare + 1
    rows = [
        ("nothing_to_reachable", f"{made:.2f}s", "6s", made <= 6),
        ("nothing_to_reachable_by_bare_process", f"{made / bare:.1f}", "-", True),
        ("no_change", f"{unchanged:.2f}s", f"{limit:.2f}s", unchanged <= limit),
        ("bare_process", f"{bare:.2f}s", "-", True),
        ("back_to_zero", f"{removed:.2f}s", "-", True),
        ("duplicates_after_kills", str(duplicates), "0", duplicates == 0),
        ("leaks_after_kills", str(leaks), "0", leaks == 0),
    ]
    for figure, value, bar, good in rows:
        print(figure, value, bar, "ok" if good else "short")
    print(f"# {KILLS} kills, seed {seed}: {', '.join(f'{count} {what}' for what, count in killed.items())}")
    return 0 if all(good for *_, good in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
