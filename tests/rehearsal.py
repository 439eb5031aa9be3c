"""The whole site against the emulated cloud, whose instance is a real host: provision to video, again, and destroy.

    PYTHONPATH=emulator python tests/rehearsal.py     (needs root; `make rehearsal`)

What the plays say is shown as they say it. At the end each promise is printed with what was found, and one that was
not kept makes the exit code 1. Without root, or where test hosts cannot be had, it says so and is skipped; under
REQUIRE_HOSTS=1 that is a failure.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import av
from emulated_cloud import EmulatedCloud, emulated_cloud
from testhosts.machine import what_is_missing
from testhosts.network import PROXY_URL
from testhosts.tree import tree

ROOT = Path(__file__).parent.parent
PROGRAMS = Path(sys.executable).parent
SUITE = "trixie"


def play(cloud: EmulatedCloud, folder: Path, *words: str) -> str:
    """Play in the namespace of the hosts, as a user whose home is empty; the output is shown and returned."""
    env = cloud.env | {"HOME": str(folder / "home"), "REHEARSAL_FOLDER": str(folder), "ANSIBLE_NOCOLOR": "1"}
    command = ["nsenter", f"--net={cloud.ready['namespace']}", str(PROGRAMS / "ansible-playbook")]
    command += [*words, "-i", "inventory/rehearsal"]
    print(f"\n$ ansible-playbook {' '.join(words)} -i inventory/rehearsal", flush=True)
    said = ""
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout
        for line in process.stdout:
            print(line, end="", flush=True)
            said += line
    code = process.returncode
    return said if code == 0 else f"{said}\nexit code {code}"


def total(said: str, count: str) -> int:
    """The sum over all hosts of a count in the recap, such as `changed`; -1 where the play did not end well."""
    recap = said.rpartition("PLAY RECAP")[2]
    if "exit code" in recap or not recap:
        return -1
    return sum(int(number) for number in re.findall(rf"\b{count}=(\d+)", recap))


def video(path: Path) -> str:
    """What a video file holds, in words."""
    if not path.exists():
        return "no file"
    with av.open(path) as opened:
        picture = opened.streams.video[0]
        sounds = len(opened.streams.audio)
        frames = sum(1 for _ in opened.decode(video=0))
        return f"{frames} frames of {picture.width}x{picture.height}, {sounds} sound"


def rehearse(folder: Path) -> list[tuple[str, Any, Any]]:
    """Return the promises: name, what was found, what is wanted."""
    (folder / "home").mkdir()
    with emulated_cloud(folder, hosts=SUITE) as cloud:
        clock = time.monotonic()
        first = play(cloud, folder, "site.yml")
        print(f"first run: {time.monotonic() - clock:.0f} s")
        clock = time.monotonic()
        second = play(cloud, folder, "site.yml")
        print(f"second run: {time.monotonic() - clock:.0f} s")
        launched = cloud.ledger()["launched"]
        destroyed = play(cloud, folder, "playbooks/destroy.yml")
        left, ledger = cloud.alive(), cloud.ledger()
        guests = list((cloud.state / "guests").iterdir())
    return [
        ("first_run_failed", total(first, "failed") + total(first, "unreachable"), 0),
        ("first_run_made", total(first, "changed") > 10, True),
        ("no_gpu_is_said", "no NVIDIA GPU" in first, True),
        ("video", video(folder / "out" / "rehearsal" / "rehearsal.mp4"), video(ROOT / "demo" / "clipA.mp4")),
        ("report", (folder / "out" / "rehearsal" / "report.html").exists(), True),
        ("second_run_changed", total(second, "changed"), 0),
        ("launched", launched, 1),
        ("destroy_failed", total(destroyed, "failed"), 0),
        ("left_in_the_cloud", len(left), 0),
        ("still_bills", ledger["hourly"], 0),
        ("hosts_left", len(guests), 0),
    ]


def main() -> int:
    """Rehearse, and judge."""
    if lacking := what_is_missing():
        print(f"SKIPPED: the rehearsal, whose instance is a real host: {lacking}.")
        return 1 if os.environ.get("REQUIRE_HOSTS") == "1" else 0
    tree(SUITE, PROXY_URL)  # may take a minute, for which nobody waits who starts an emulator
    with tempfile.TemporaryDirectory(prefix="a rehearsal ") as folder:
        promises = rehearse(Path(folder))
    print()
    for name, found, wanted in promises:
        print(f"{name} {json.dumps(found)} {json.dumps(wanted)} {'ok' if found == wanted else 'short'}")
    return 0 if all(found == wanted for _, found, wanted in promises) else 1


if __name__ == "__main__":
    sys.exit(main())
