"""A job behind the real gate: real supervisor and records, doubles in the place of the engine and the role's scripts.

Which folder says whom to trust is no setting, so the copy of the programs has that one constant rewritten.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from supervised_job import REAL_PROGRAMS, Job, Json
from trust import Trust, consent

ENGINE = '''
"""Trains: each iteration adds a line to the model."""
import json, pathlib, sys, time
words = sys.argv[1:]
model = pathlib.Path("model")
model.mkdir(exist_ok=True)
state = model / "double_state.json"
done = json.loads(state.read_text())["iterations"] if state.exists() else 0
for number in range(done + 1, done + int(words[words.index("-i") + 1]) + 1):
    with (model / "weights.bin").open("a") as weights:
        weights.write("x")
    state.write_text(json.dumps({"iterations": number}))
    print(f"\\r[12:00:00] [#{number:05d}] Loss A: 0.1, Loss B: 0.1", end="", flush=True)
    time.sleep(float(pathlib.Path("pause").read_text()) if pathlib.Path("pause").exists() else 0)
'''
EXTRACT = '''
"""Two faces, of the first two letters of the source."""
import pathlib, sys, time
from gate import admit_by_hand
words = sys.argv[1:]
source, faces, alignments = (pathlib.Path(words[words.index(word) + 1]) for word in ("-i", "-o", "-p"))
admit_by_hand("extract", source, faces=faces, alignments=alignments)
pathlib.Path("begun").touch()
text = source.read_text() if source.is_file() else "".join(p.read_text() for p in sorted(source.iterdir()))
while pathlib.Path("hold").exists():
    time.sleep(0.05)
faces.mkdir()
for number, letter in enumerate(text[:2]):
    (faces / f"{number}.png").write_text(letter)
alignments.write_text(text)
report = pathlib.Path("faces") / faces.name[-1]
report.mkdir(parents=True)
(report / "report.json").write_text("{}")
'''
CONVERT = '''
"""One frame, of the model's size."""
import pathlib
pathlib.Path("quarantine").mkdir()
pathlib.Path("quarantine/a_1.png").write_text(pathlib.Path("model/weights.bin").read_text())
'''
RELEASE = '''
"""A video, which is the frame."""
import pathlib, sys
pathlib.Path("result").mkdir()
pathlib.Path("result/swap.mp4").write_text(pathlib.Path("quarantine/a_1.png").read_text())
pathlib.Path("result/label.json").write_text('{"text": "AI-manipulated"}')
'''


class GatedJob(Job):
    """A job with two sources and the records of two persons, asked as the action plugin asks."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.place = folder
        (self.folder / "in.txt").unlink()
        (folder / "jobs").mkdir()
        self.folder = self.folder.rename(folder / "jobs" / "job")
        self.trust = Trust(folder / "trust")
        self.programs = folder / "bin"
        shutil.copytree(REAL_PROGRAMS, self.programs, ignore=shutil.ignore_patterns("__pycache__"))
        module = self.programs / "consent.py"
        text = module.read_text()
        line = 'SYSTEM_TRUST = Path("/etc/faceswap-oci")'
        assert line in text
        module.write_text(text.replace(line, f"SYSTEM_TRUST = Path({str(self.trust.trusted)!r})"))
        here = "import sys, pathlib; sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))\n"
        for name, content in (("faces/extract", EXTRACT), ("faces/convert", CONVERT), ("release/release", RELEASE)):
            (self.programs / f"{name}.py").write_text(here + content)
        self.program = self.programs / "supervisor.py"
        double = folder / "engine" / "double.py"
        double.write_text(ENGINE)
        engine = json.loads(self.engine.read_text())
        self.engine.write_text(json.dumps({**engine, "command": [sys.executable, str(double)]}))
        self.media = {side: self.source(side, f"{side}nna's video") for side in "ab"}
        self.records = {side: self.record(path, side) for side, path in self.media.items()}
        for side in "ab":
            self.bring(side)

    def source(self, name: str, text: str) -> Path:
        """A video, as far as these doubles know."""
        path = self.place / f"{name}.mp4"
        path.write_text(text)
        return path

    def record(self, source: Path, sides: str, **changes: Any) -> Path:
        """A signed record for a source."""
        picture = self.place / f"picture-{source.stem}-{sides}.png"
        picture.write_text(f"picture of {source.stem} {sides}")
        return self.trust.record(source, sides, reference=picture, **changes)

    def bring(self, side: str, source: Path | None = None, record: Path | None = None) -> None:
        """Lay a source and its record into the job, as the role does."""
        record = record or self.records[side]
        (self.folder / "input").mkdir(exist_ok=True)
        (self.folder / "consent").mkdir(exist_ok=True)
        for path, target in (
            (source or self.media[side], f"input/{side}.mp4"),
            (record, f"consent/{side}.yml"),
            (record.with_name(f"{record.name}.sig"), f"consent/{side}.yml.sig"),
            (self.trust.reference(record), f"consent/{side}.reference.png"),
        ):
            if path.exists():
                shutil.copy(path, self.folder / target)

    def spec(self, stage: str, **changes: Any) -> Json:
        """What the role asks for."""
        made: Json = {"stage": stage, "engine_file": str(self.engine), "neutral_arguments": [], "editable": []}
        own = ["--engine", str(self.engine)]
        if stage.startswith("extract_"):
            side = stage[-1]
            words = ["extract", "-i", f"input/{side}.mp4", "-o", f"faces_{side}", "-p", f"alignments_{side}.json"]
            made |= {
                "script": "faces/extract.py",
                "arguments": [*own, *(["--converted"] if side == "a" else []), "--", *words, "-z", "256"],
                "neutral_arguments": ["--", "--ranges", "1", "--report", f"faces/{side}", "--least", "1"],
                "inputs": [f"input/{side}.mp4"],
                "outputs": [f"faces_{side}", f"alignments_{side}.json", f"faces/{side}"],
                "editable": [f"faces_{side}"],
            }
        elif stage == "train":
            words = ["train", "-A", "faces_a", "-B", "faces_b", "-m", "model", "-t", "lightweight"]
            made |= {"arguments": words, "neutral_arguments": ["-s", "250"], "inputs": ["faces_a", "faces_b"]}
            made |= {"outputs": ["model"], "iterations": 3, "model": "model", "training": {"checkpoints": 0}}
        elif stage == "convert":
            words = ["convert", "-i", "input/a.mp4", "-p", "alignments_a.json", "-o", "quarantine", "-m", "model"]
            made |= {
                "script": "faces/convert.py",
                "arguments": [*own, "--", *words, "-w", "opencv", "-c", "avg-color", "-M", "extended"],
                "neutral_arguments": ["--", "--ranges", "1"],
                "inputs": ["input/a.mp4", "alignments_a.json", "model"],
                "outputs": ["quarantine"],
            }
        else:
            paths = ["--source", "input/a.mp4", "--frames", "quarantine", "--output", "result"]
            made |= {
                "script": "release/release.py",
                "arguments": [
                    ".",
                    "--job",
                    "swap",
                    *paths,
                    "--label",
                    "KI/AI - manipulé",
                    "--fps",
                    "25",
                    "--part",
                    "",
                ],
                "inputs": ["input/a.mp4", "quarantine"],
                "outputs": ["result"],
            }
        return {**made, **changes}

    def make(self, *stages: str, **changes: Any) -> Json:
        """Bring stages to their ends; the last one's."""
        for stage in stages:
            end = self.finish(self.spec(stage, **changes))
            assert end["complete"], end
        return end

    def refuse(self, stage: str, code: int, *words: str, **changes: Any) -> str:
        """See that a stage is refused, at its start or when its unit runs it; return the sentence."""
        answer = self.start(self.spec(stage, **changes))
        assert answer.get("code") == code, answer
        text = str(answer["error"])
        assert "\n" not in text and all(word in text for word in words), text
        return text

    def made(self, stage: str) -> Json:
        """What the stage recorded."""
        content: Json = json.loads((self.folder / "stages" / stage / "made.json").read_text())
        return content

    def by_hand(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one of the programs without the supervisor."""
        command = [sys.executable, *words]
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=60, env={**os.environ}
        )


__all__ = ["GatedJob", "consent"]
