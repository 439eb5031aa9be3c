"""Whether consent can be got round, what it costs, and if a flipped byte is found. `make bench-consent`; needs root.

Prints `name value limit ok|short` for each figure and fails when one is short. The attempts stand in
consent_attempts.py; they are made on a real host (emulator/testhosts), where an honest job was done first.
"""

import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import consent_attempts
from ansible_collections.faceswap.ops.plugins.module_utils import audit_log
from consent_attempts import ATTEMPTS, DIR, HOST, JOBS, Studio
from testhosts.hosts import test_hosts
from testhosts.machine import what_is_missing
from trust import Trust, consent

ROOT = Path(__file__).parent.parent
FLIPS = 100
# On the host: for each stage of the honest job the seconds of its gate, and of hashing the same files alone.
MEASURE = """
import hashlib, json, statistics, sys, time
from pathlib import Path
sys.path.insert(0, {bin!r})
sys.dont_write_bytecode = True
import gate
def seconds(work):
    clock = time.perf_counter()
    work()
    return time.perf_counter() - clock
def hash_all(paths):
    for path in paths:
        digest = hashlib.sha256()
        with open(path, "rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
job = Path({job!r})
for stage in ("extract_a", "extract_b", "train", "convert", "release"):
    spec = json.loads((job / "stages" / stage / "spec.json").read_text())
    inputs = [job / name for name in spec["inputs"]]
    files = [path for one in inputs for path in ([one] if one.is_file() else one.rglob("*")) if path.is_file()]
    whole = statistics.median(seconds(lambda: gate.admit(job, stage, spec)) for _ in range(5))
    alone = statistics.median(seconds(lambda: hash_all(files)) for _ in range(5))
    print(stage, whole - alone)
"""


def figure(name: str, value: float, good: bool, limit: str) -> bool:
    """Print one figure; return whether it holds."""
    print(f"{name} {value:.4g} {limit} {'ok' if good else 'short'}", flush=True)
    return good


def attempts(studio: Studio) -> list[bool]:
    """Make all attempts, and tell of each how it ended."""
    out, otherwise = 0, 0
    for one in ATTEMPTS:
        clock = time.monotonic()
        loot, said = studio.try_it(one)
        expected = consent_attempts.refused(said, one.code)
        out, otherwise = out + bool(loot), otherwise + (not expected)
        end = "GOT OUT: " + ", ".join(loot) if loot else f"refused ({one.code})" if expected else "ENDED OTHERWISE"
        print(f"  {one.name}: {end}  [{time.monotonic() - clock:.0f} s]", flush=True)
        if loot or not expected:
            print("    " + "\n    ".join(said.splitlines()[-25:]), flush=True)
    return [
        figure("attempts", len(ATTEMPTS), len(ATTEMPTS) >= 25, ">=25"),
        figure("swaps_out", out, out == 0, "0"),
        figure("refused_for_another_reason", otherwise, otherwise == 0, "0"),
    ]


def gate_cost(studio: Studio) -> bool:
    """How much longer than hashing its files a stage's gate takes."""
    program = studio.folder / "measure.py"
    program.write_text(MEASURE.format(bin=f"{DIR}/bin", job=f"{JOBS}/honest"))
    studio.send(program, "/tmp/measure.py")
    said = studio.as_jobs_user("python3 -I /tmp/measure.py")
    seconds = {line.split()[0]: float(line.split()[1]) for line in said.splitlines() if line.count(" ") == 1}
    assert len(seconds) == 5, said
    print("  " + ", ".join(f"{stage} {value:.3f} s" for stage, value in seconds.items()), flush=True)
    return figure("gate_seconds_beyond_hashing", max(seconds.values()), max(seconds.values()) <= 1, "1")


def marks_cost(studio: Studio, said: str) -> bool:
    """The share of label and signing in convert and release."""
    states = {
        stage: json.loads(studio.sudo(f"cat {JOBS}/honest/stages/{stage}/state.json"))["seconds"]
        for stage in ("convert", "release")
    }
    log = studio.sudo(f"cat {JOBS}/honest/stages/release/log.txt")
    label = re.findall(r"Label: ([0-9.]+) s", log)
    signing = re.findall(r"signing took ([0-9.]+) s", " ".join(said.split()))
    assert label and signing, (log, said)
    marks = float(label[-1]) + float(signing[-1])
    whole = sum(states.values()) + float(signing[-1])
    print(f"  label {label[-1]} s, signing {signing[-1]} s, convert and release {whole:.2f} s", flush=True)
    return figure("label_and_signing_percent", 100 * marks / whole, marks <= 0.1 * whole, "10")


def flips(name: str, content: bytes, found: Callable[[bytes], bool]) -> bool:
    """Flip a random bit of a random byte, a hundred times."""
    dice = random.Random()
    count = 0
    for _ in range(FLIPS):
        at = dice.randrange(len(content))
        flipped = bytearray(content)
        flipped[at] ^= 1 << dice.randrange(8)
        hit = found(bytes(flipped))
        count += hit
        if not hit:
            print(f"  byte {at} of {len(content)} ({content[at]:#x} to {flipped[at]:#x}) was not found", flush=True)
    return figure(f"flips_found_in_{name}", count, count == FLIPS, str(FLIPS))


def flipped_record(trust: Trust, folder: Path) -> bool:
    """Flip bits in a record, in its signature and in its picture; whether the record still counts for what it did."""
    module = consent()
    source = folder / "flips.mp4"
    shutil.copy(ROOT / "demo" / "clipA.mp4", source)
    record = trust.record(source, "a")
    digest = module.digest_of(source)
    files = [record, record.with_name(record.name + ".sig"), trust.reference(record)]
    content = [path.read_bytes() for path in files]
    # The picture has a hundred times the record's bytes: each file gets its share of the flips.
    joined = content[0] + content[1] + content[2][: len(content[0])]
    tried = folder / "flipped"
    program = [sys.executable, str(ROOT / "roles/faceswap_run/files/consent.py"), "check"]

    def found(flipped: bytes) -> bool:
        shutil.rmtree(tried, ignore_errors=True)
        tried.mkdir()
        first, second = len(content[0]), len(content[0]) + len(content[1])
        parts = [flipped[:first], flipped[first:second], flipped[second:] + content[2][len(content[0]) :]]
        for path, part in zip(files, parts, strict=True):
            (tried / path.name).write_bytes(part)
        words = ["--record-a", str(tried / record.name), "--source-a", str(source)]
        return subprocess.run([*trust.prefix, *program, *words], capture_output=True).returncode != 0

    assert not found(joined), "a record that nobody touched is not taken"
    assert digest == module.digest_of(source)
    return flips("a_record", joined, found)


def flipped_result(studio: Studio) -> bool:
    """Flip bits in the released video."""
    video = studio.folder / "out" / "honest" / "honest.mp4"
    side_car = video.with_name(f"{video.name}.provenance.json")
    tried = studio.folder / "tried"
    tried.mkdir()
    shutil.copy(side_car, tried)
    copy = tried / video.name
    program = [str(Path(sys.executable).parent / "faceswap-oci"), "verify"]

    def found(flipped: bytes) -> bool:
        copy.write_bytes(flipped)
        return subprocess.run([*program, str(copy)], cwd=ROOT, capture_output=True).returncode != 0

    assert not found(video.read_bytes()), "a file that nobody touched is not taken"
    return flips("the_released_file", video.read_bytes(), found)


def flipped_log(studio: Studio) -> bool:
    """Flip bits in the audit log that the attempts left."""
    folder = studio.folder / "audit"
    shutil.copytree(studio.trust.audit, folder)
    log = folder / "log.jsonl"

    def found(flipped: bytes) -> bool:
        log.write_bytes(flipped)
        findings = audit_log.verify(folder)
        return findings is None or bool(findings.sentences)

    content = log.read_bytes()
    assert not found(content), "a log that nobody touched is not taken"
    return flips("the_log", content, found)


def main() -> int:
    """Measure."""
    if lacking := what_is_missing():
        print(f"bench_consent: {lacking}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="bench consent ") as name:
        folder = Path(name)
        trust = Trust(folder / "signers")
        with test_hosts(folder / "hosts", {HOST: "trixie"}) as hosts:
            studio = Studio(hosts, trust, folder)
            clock = time.monotonic()
            said = studio.play("-v", playbook="site.yml", faceswap_run_job="honest")
            assert "exit code 0" in said, said
            print(f"  the honest job: released  [{time.monotonic() - clock:.0f} s]", flush=True)
            good = [marks_cost(studio, said), gate_cost(studio), *attempts(studio)]
            good += [flipped_result(studio), flipped_log(studio), flipped_record(trust, folder)]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
