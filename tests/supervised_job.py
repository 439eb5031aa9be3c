"""A job folder and the supervisor as a program, with a counting double in the engine's place, for tests."""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache, partial
from pathlib import Path
from typing import Any

import waiting

HERE = Path(__file__).parent
REAL_PROGRAMS = HERE.parent / "roles" / "faceswap_run" / "files"
Json = dict[str, Any]


@cache
def ungated_programs() -> Path:
    """A copy of the host's programs whose gate admits every stage: these tests are about what comes behind it."""
    folder = Path(tempfile.mkdtemp(prefix="faceswap-programs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shutil.copytree(REAL_PROGRAMS, folder / "bin", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(HERE / "gate_double.py", folder / "bin" / "gate.py")
    folder.chmod(0o755)  # tests become other users
    return folder / "bin"


PROGRAMS = ungated_programs()
SUPERVISOR, UNITS = PROGRAMS / "supervisor.py", PROGRAMS / "units.py"


wait_until = partial(waiting.wait_until, seconds=20)


class Job:
    """A job folder, and the supervisor asked as the action plugin asks it."""

    program = SUPERVISOR

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "job of mine"
        self.folder.mkdir()
        self.engine = folder / "engine.json"
        self.identity = folder / "engine"
        self.identity.mkdir()
        (self.identity / "code.py").write_text("1")
        self.engine.write_text(
            json.dumps(
                {
                    "name": "double",
                    "command": [sys.executable, str(HERE / "engine_double.py")],
                    "python": sys.executable,
                    "identity": [str(self.identity)],
                }
            )
        )
        (self.folder / "in.txt").write_text("a face")

    def describe_environment(self, name: str) -> None:
        """Put an engine that writes a variable of its environment in the double's place."""
        code = f"import os, sys; os.mkdir('out'); open('out/1.txt', 'w').write(os.environ[{name!r}])"
        engine = json.loads(self.engine.read_text())
        self.engine.write_text(json.dumps({**engine, "command": [sys.executable, "-c", code]}))

    def ask(self, verb: str, *words: str, spec: Json | None = None) -> Json:
        done = subprocess.run(
            [str(self.program), verb, str(self.folder), *words],
            input=json.dumps(spec or {}),
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "Traceback" not in done.stderr
        answer: Json = json.loads(done.stdout)
        assert (done.returncode == 0) == ("error" not in answer)
        return answer

    def environment(self) -> dict[str, str]:
        return {**os.environ}

    def start(self, spec: Json, *flags: str) -> Json:
        return self.ask("start", spec["stage"], *flags, spec=spec)

    def status(self, stage: str) -> Json:
        return self.ask("status", stage)

    def finish(self, spec: Json) -> Json:
        """Start a stage and wait for its end; return its last status with `changed` and `reason`."""
        answer = self.start(spec)
        assert "error" not in answer, answer
        wait_until(lambda: not self.status(spec["stage"])["alive"])
        return {**self.status(spec["stage"]), **answer}

    def state(self, stage: str) -> Json:
        content: Json = json.loads((self.folder / "stages" / stage / "state.json").read_text())
        return content

    def convert(self, **changes: Any) -> Json:
        return {
            "stage": "convert",
            "engine_file": str(self.engine),
            "arguments": ["convert", "-i", "in.txt", "-o", "out"],
            "inputs": ["in.txt"],
            "outputs": ["out"],
            **changes,
        }

    def train(self, total: int, every: float = 0.0, **changes: Any) -> Json:
        return {
            "stage": "train",
            "engine_file": str(self.engine),
            "arguments": ["train", "-m", "model"],
            "neutral_arguments": ["--every", str(every)],
            "inputs": ["in.txt"],
            "outputs": ["model"],
            "iterations": total,
            "model": "model",
            **changes,
        }

    def iterations(self) -> int:
        try:
            return int(json.loads((self.folder / "model" / "double_state.json").read_text())["iterations"])
        except (OSError, ValueError):  # not there yet, or just being written
            return 0
