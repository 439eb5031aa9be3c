"""Breaks the code on purpose, one breakage at a time, and sees that the test meant for it fails.

    python tests/mutants.py [WORD ...]     (`make mutants`; only the breakages that have one of these words in them)

The breakages stand in mutants.yml. Each is made in a copy of the checkout, never in the checkout itself. One that no
test notices is a hole in the tests: it is said, and the exit code is 1.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
TIMEOUT_S = 900
NOT_COPIED = ("var", "out", ".git", ".venv*", ".mypy_cache", ".ruff_cache", ".pytest_cache", "__pycache__")


@dataclass(frozen=True)
class Mutant:
    """One breakage: in `file`, the text `old` (it stands there once) becomes `new`, and `test` must fail for it."""

    name: str
    file: str
    old: str
    new: str
    test: str  # `pytest ARGUMENTS`, or `molecule SCENARIO`

    def command(self) -> list[str]:
        """What is run in the copy."""
        tool, *words = self.test.split()
        if tool == "molecule":
            return ["molecule", "test", "--scenario-name", *words]
        return [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *words]


def test(mutant: Mutant, copy: Path) -> int:
    """Run its test in the copy, as it stands; return the exit code, 124 where it hung."""
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{copy / 'src'}{os.pathsep}{copy / 'engine'}",  # before what is installed from the checkout
        "REQUIRE_HOSTS": "1",  # a skipped test notices nothing
    }
    process = subprocess.Popen(
        mutant.command(),
        cwd=copy,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return 124
    finally:
        if mutant.test.startswith("molecule"):
            words = ["molecule", "destroy", "--scenario-name", mutant.test.split()[1]]
            subprocess.run(words, cwd=copy, env=env, capture_output=True, check=False, timeout=TIMEOUT_S)


def play(mutant: Mutant, copy: Path, whole: dict[str, int]) -> str:
    """Break, test, mend. Returns what became of it: caught, SURVIVED, or why it could not be tried.

    `whole` has the exit codes of the tests on unbroken code: one that fails there too notices nothing.
    """
    path = copy / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        return f"STALE: its old text stands {text.count(mutant.old)} times in {mutant.file}"
    if mutant.test not in whole:
        whole[mutant.test] = test(mutant, copy)
    if whole[mutant.test]:
        return f"STALE: `{mutant.test}` fails on unbroken code, too"
    path.write_text(text.replace(mutant.old, mutant.new))
    try:
        code = test(mutant, copy)
    finally:
        path.write_text(text)
    return "caught (it hung)" if code == 124 else "caught" if code else "SURVIVED"


def main() -> int:
    """Play the chosen mutants."""
    every = [Mutant(**entry) for entry in yaml.safe_load(Path(__file__).with_name("mutants.yml").read_text())]
    wanted = sys.argv[1:]
    chosen = [
        one for one in every if not wanted or any(word in f"{one.name} {one.file} {one.test}" for word in wanted)
    ]
    bad, whole = 0, dict[str, int]()
    with tempfile.TemporaryDirectory(prefix="mutants ") as folder:
        copy = Path(folder) / "checkout"
        shutil.copytree(ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
        subprocess.run(["git", "init", "--quiet", copy], check=True)  # molecule finds its shared settings by it
        for number, mutant in enumerate(chosen, 1):
            clock = time.monotonic()
            verdict = play(mutant, copy, whole)
            bad += not verdict.startswith("caught")
            print(f"{number}/{len(chosen)} {verdict} {time.monotonic() - clock:.0f}s  {mutant.name}", flush=True)
    print(f"{len(chosen) - bad} of {len(chosen)} caught")
    return 1 if bad or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
