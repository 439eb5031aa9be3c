"""A whole job with the real Faceswap on this machine's CPU, for tests marked `upstream` and for the benchmark."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PROGRAMS = Path(sys.executable).parent


class Faceswap:
    """Plays jobs with an installed Faceswap, all below one folder."""

    def __init__(self, engine: Path, folder: Path) -> None:
        self._engine = engine
        self._folder = folder
        self.jobs = folder / "var" / "jobs"

    def _command(self, words: tuple[str, ...], values: dict[str, Any]) -> list[str]:
        given = {
            "faceswap_run_job": "swap",
            "faceswap_run_engine_file": str(self._engine),
            "faceswap_run_dir": str(self._folder / "var"),
            "faceswap_run_out": str(self._folder / "out"),
            **values,
        }
        job = f"@{ROOT / 'tests' / 'upstream_job.yml'}"
        # The inventory is the demo's, whose engine is another one.
        skipped = "nvidia_cuda,faceswap_install"
        playbook = [str(PROGRAMS / "ansible-playbook"), "site.yml", "-i", "inventory/demo", "--skip-tags", skipped]
        return [*playbook, "-e", job, "-e", json.dumps(given), *words]

    @contextmanager
    def playing(self, *words: str, **values: Any) -> Iterator[subprocess.Popen[str]]:
        """Play the job beside what the block does; `words` go to ansible-playbook, `values` to the role."""
        with subprocess.Popen(
            self._command(words, values),
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as play:
            yield play

    def play(self, *words: str, **values: Any) -> str:
        """Play the job to its end and return what was said; AssertionError where it failed."""
        with self.playing(*words, **values) as play:
            said, _ = play.communicate(timeout=3600)
        assert play.returncode == 0, said
        return said


def judge(job: Path) -> subprocess.CompletedProcess[str]:
    """Judge a job's frames just as the demo's are; the landmarks are those that our own detector finds in A."""
    a, b = (ROOT / "demo" / f"clip{side}.mp4" for side in "AB")
    landmarks = job / "landmarks.json"
    detector = [sys.executable, str(ROOT / "engine" / "faceswap.py"), "extract", "-i", str(a), "-p", str(landmarks)]
    subprocess.run(detector, check=True, capture_output=True)
    command = [sys.executable, str(ROOT / "tests" / "swap_judge.py"), "--a", str(a), "--b", str(b)]
    command += ["--frames", str(job / "quarantine"), "--alignments", str(landmarks)]
    return subprocess.run(command, capture_output=True, text=True)
