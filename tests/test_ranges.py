"""Work cut into ranges of frames: cutting, running side by side, joining; and videos that are shown turned."""

import ast
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from supervised_job import PROGRAMS
from supervised_job import Job as JobFolder
from upstream import needs_source, upstream_engine
from waiting import wait_until

ROOT = Path(__file__).resolve().parents[1]
FACES = ROOT / "roles" / "faceswap_run" / "files" / "faces"
sys.path.insert(0, str(FACES))

import alignments  # noqa: E402
import media  # noqa: E402
from ranges import split  # noqa: E402

DOUBLE = Path(__file__).with_name("extract_double.py")
ALONE = Path(__file__).with_name("extract_alone.py")  # extract.py, and no question whose faces they are
FRAMES, WIDTH, HEIGHT = 23, 160, 96
Pixels = NDArray[np.uint8]

__all__ = ["upstream_engine"]


# -- cutting and running ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "last", "pieces"), [(1, 1, 1), (1, 10, 3), (5, 10, 6), (46, 90, 2), (1, 3, 9)])
def test_ranges_are_even_and_without_gaps(first: int, last: int, pieces: int) -> None:
    ranges = split(first, last, pieces)
    assert [frame for a, b in ranges for frame in range(a, b + 1)] == list(range(first, last + 1))
    sizes = [b - a + 1 for a, b in ranges]
    assert len(sizes) == min(pieces, last - first + 1) and max(sizes) - min(sizes) <= 1


CHILD = """
import os, pathlib, signal, sys, time
name, ending = sys.argv[1:3]

def interrupted(*_):
    pathlib.Path(name + ".interrupted").touch()
    print(name, "was interrupted and is sorry", flush=True)
    sys.exit(130)

signal.signal(signal.SIGINT, interrupted)
for n in range(1, 11):
    print(f"\\x1b[2KWorking: {n}/10 [00:01<00:01]", end="\\r", flush=True)
print("Analyzing Video: 100%| 7/7 [00:01<00:01]", end="\\r", flush=True)  # another step's
print(name, "says hello", os.fstat(int(os.environ["HELD"])).st_size, flush=True)
pathlib.Path(name + ".begun").touch()
if ending == "waits":
    time.sleep(60)
if ending == "hangs":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("06:30 ERROR I will never end", flush=True)
    time.sleep(60)
if ending == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(ending))
"""

DRIVER = f"""
import json, re, sys
sys.path.insert(0, {str(FACES)!r})
from ranges import HopelessError, run_side_by_side
commands = json.loads(sys.argv[1])
try:
    run_side_by_side(commands, [10] * len(commands), "Together", re.compile("never end"))
except HopelessError as error:
    print("hopeless:", error)
    sys.exit(9)
"""


def start(folder: Path, *endings: str) -> subprocess.Popen[str]:
    """Run children that end so side by side."""
    (folder / "held").write_text("1234567")
    held = os.open(folder / "held", os.O_RDONLY)
    commands = [[sys.executable, "-c", CHILD, f"child{n}", ending] for n, ending in enumerate(endings)]
    try:
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, json.dumps(commands)],
            cwd=folder,
            env={**os.environ, "HELD": str(held)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=[held],
        )
    finally:
        os.close(held)


def said(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    output, _ = process.communicate(timeout=60)
    assert "Traceback" not in output
    return process.returncode, [line for line in re.split(r"[\r\n]+", output) if line.strip()]


def test_progress_is_summed_and_the_rest_passed_on(tmp_path: Path) -> None:
    code, lines = said(start(tmp_path, "0", "0", "0"))
    assert code == 0
    hello = {
        f"child{n} says hello 7" for n in range(3)
    }  # and the descriptor that stands for the stage's lock is there
    assert hello <= set(lines)
    counted = [re.search(r"Together: .*?(\d+)/30 \[", line) for line in lines if line not in hello]
    assert all(counted)
    numbers = [int(match[1]) for match in counted if match]
    assert numbers == sorted(numbers) and numbers[-1] == 30


def test_one_alone_speaks_for_itself(tmp_path: Path) -> None:
    code, lines = said(start(tmp_path, "0"))
    assert code == 0
    assert lines[-3:-1] == ["Working: 10/10 [00:01<00:01]", "Analyzing Video: 100%| 7/7 [00:01<00:01]"]


def test_one_that_fails_ends_the_others_and_is_heard(tmp_path: Path) -> None:
    process = start(tmp_path, "waits", "5")
    code, lines = said(process)
    assert code == 5
    assert (tmp_path / "child0.interrupted").exists() or not (tmp_path / "child0.begun").exists()
    assert "child0 was interrupted and is sorry" not in lines


def test_one_that_a_signal_ends_ends_all_by_it(tmp_path: Path) -> None:
    assert said(start(tmp_path, "killed", "waits"))[0] == -signal.SIGKILL


def test_one_that_would_hang_is_ended(tmp_path: Path) -> None:
    code, lines = said(start(tmp_path, "hangs"))
    assert code == 9 and lines[-1] == "hopeless: 06:30 ERROR I will never end"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_all_as_an_interrupt(tmp_path: Path, number: int) -> None:
    process = start(tmp_path, "waits", "waits")
    wait_until(lambda: all((tmp_path / f"child{n}.begun").exists() for n in range(2)), 30)
    process.send_signal(number)
    assert said(process)[0] == 130
    assert all((tmp_path / f"child{n}.interrupted").exists() for n in range(2))


# -- a whole extract -------------------------------------------------------------------------------------------------


def picture(number: int, turn: int = 0) -> Pixels:
    """An upright frame whose face wanders, or has none, turned clockwise by quarter turns as it would be stored."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    frame = np.stack([x // 4 + 90, y // 4 + 90, (x + y) // 8 + 90], -1).astype(np.uint8)
    if number % 6:
        left, top = 20 + 4 * number, 40 + number
        frame[top : top + 9, left : left + 9] = (250, 20, 20)
        frame[top - 25 : top - 16, left : left + 9] = (20, 20, 250)
    return np.ascontiguousarray(np.rot90(frame, -turn))


def film(path: Path, turn: int = 0) -> Path:
    """A video whose frames come upright by so many quarter turns counterclockwise, and says so."""
    path.parent.mkdir(exist_ok=True)
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264rgb", rate=25, options={"crf": "0"})
        stream.height, stream.width = picture(1, turn).shape[:2]
        stream.pix_fmt = "rgb24"
        if turn:
            stream.set_display_rotation({1: 90, 2: 180, 3: -90}[turn])
        for number in range(1, FRAMES + 1):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number, turn), "rgb24")))
        out.mux(stream.encode(None))
    return path


def images(folder: Path, name: Callable[[int], str]) -> Path:
    folder.mkdir(parents=True)
    for number in range(1, FRAMES + 1):
        Image.fromarray(picture(number)).save(folder / name(number))
    return folder


class Extract:
    """Runs extract.py with the double in a job's folder."""

    def __init__(self, job: Path) -> None:
        self.job = job
        self.engine = job / "engine.json"
        double = [sys.executable, str(DOUBLE)]
        self.engine.write_text(json.dumps({"name": "faceswap", "command": double, "detector": double}))

    def __call__(
        self, *own: object, source: str = "input/a.mp4", to: str = "faces_a", more: Sequence[str] = (), **env: str
    ) -> subprocess.CompletedProcess[str]:
        words = ["extract", "-i", source, "-o", to, "-p", f"{to}.fsa", *more]
        before = [str(word) for word in own]
        return subprocess.run(
            [sys.executable, str(ALONE), "--engine", str(self.engine), *before, "--", *words],
            cwd=self.job,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def made(self, *own: object, **options: Any) -> tuple[Any, dict[str, bytes]]:
        """Alignments, and the faces' files by name, of a run that must succeed."""
        done = self(*own, **options)
        assert done.returncode == 0, done.stdout + done.stderr
        return self.result(options.get("to", "faces_a"))

    def result(self, to: str = "faces_a") -> tuple[Any, dict[str, bytes]]:
        assert not (self.job / f"{to}.parts").exists()
        content = alignments.load(self.job / f"{to}.fsa")
        return content, {path.name: path.read_bytes() for path in (self.job / to).iterdir()}

    def refused(self, *own: object, **options: Any) -> str:
        """The one sentence of a run that must fail."""
        done = self(*own, **options)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        return str(re.findall(r"^\S+ \S+ ERROR\s+(.*)$", done.stdout, re.M)[-1])


@pytest.fixture
def extract(tmp_path: Path) -> Extract:
    film(tmp_path / "input" / "a.mp4")
    return Extract(tmp_path)


@pytest.mark.parametrize(("pieces", "every"), [(2, 1), (3, 1), (2, 4)])
def test_ranges_make_what_the_whole_makes(extract: Extract, pieces: int, every: int) -> None:
    options = ["-N", str(every)] if every > 1 else []
    (meta, whole), faces = extract.made(more=options, to="whole")
    assert (meta, list(whole)) == ({"version": 2.4}, [f"a_{n:06d}.mp4" for n in range(1, FRAMES + 1, every)])
    assert len(faces) == len([n for n in range(1, FRAMES + 1, every) if n % 6])
    assert extract.made("--ranges", pieces, more=options, to="joined") == ((meta, whole), faces)
    assert list(extract.result("joined")[0][1]) == list(whole)


def test_ranges_are_commands_of_their_own(extract: Extract) -> None:
    """As elements of a job array: in any order, each by itself, joined at the end."""
    whole = extract.made(to="whole")
    for its_range in ("16-23", "1-7"):
        assert extract("--range", its_range).returncode == 0
    assert "no part that begins with frame 8:" in extract.refused("--join")
    assert extract("--range", "8-15").returncode == 0
    assert extract.made("--join") == whole


def test_a_range_beyond_the_end_is_refused(extract: Extract) -> None:
    assert "has no frame 24" in extract.refused("--range", "20-24")


@pytest.mark.parametrize("pieces", [1, 3])
def test_images_keep_their_names(tmp_path: Path, pieces: int) -> None:
    extract = Extract(tmp_path)
    images(tmp_path / "input" / "a", lambda number: f"Ä frame {number:02} é.png")
    (_, frames), faces = extract.made("--ranges", pieces, source="input/a")
    assert list(frames) == [f"Ä frame {number:02} é.png" for number in range(1, FRAMES + 1)]
    assert sorted(faces) == [f"Ä frame {n:02} é_0.png" for n in range(1, FRAMES + 1) if n % 6]
    assert b"'source_is_video': False" in faces["Ä frame 01 é_0.png"]
    assert len(list((tmp_path / "input" / "a").iterdir())) == FRAMES


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_video_that_is_shown_turned_is_worked_on_upright(tmp_path: Path, turn: int) -> None:
    """Faces are found, and lie in the alignments where they are in the frames as they are stored."""
    extract = Extract(tmp_path)
    film(tmp_path / "input" / "a.mp4", turn)
    film(tmp_path / "input" / "upright.mp4")
    (_, upright), upright_faces = extract.made(source="input/upright.mp4", to="upright")
    (_, frames), faces = extract.made()
    assert len(faces) == len(upright_faces) == FRAMES - FRAMES // 6
    for number in range(1, FRAMES + 1):
        found = frames[f"a_{number:06d}.mp4"]["faces"]
        assert bool(found) == bool(number % 6)
        if not found:
            continue
        stored = picture(number, turn)
        y, x = np.nonzero((stored[..., 0] > 200) & (stored[..., 2] < 100))
        red = [x.mean(), y.mean()]
        np.testing.assert_allclose(found[0]["landmarks_xy"][0], red, atol=0.01)
        mask = np.array(found[0]["mask"]["custom"]["affine_matrix"])
        np.testing.assert_allclose(mask @ [*red, 1], [10, 20], atol=0.01)
        box = found[0]
        assert {box["w"], box["h"]} == {8, 9}
        points = np.array(box["landmarks_xy"])
        assert box["x"] <= points[:, 0].min() + 1 and box["x"] + box["w"] >= points[:, 0].max() - 1
        assert box["thumb"] == upright[f"upright_{number:06d}.mp4"]["faces"][0]["thumb"]
        with Image.open(tmp_path / "faces_a" / f"a_{number:06d}_0.png") as png:
            header = ast.literal_eval(png.info["faceswap"])
        assert header["alignments"]["landmarks_xy"] == box["landmarks_xy"]
        assert header["source"]["source_frame_dims"] == stored.shape[:2]
        assert header["source"]["source_filename"] == f"a_{number:06d}.mp4"
        assert (header["source"]["source_is_video"], header["source"]["original_filename"]) == (
            True,
            f"a_{number:06d}_0.png",
        )
        names = (f"faces_a/a_{number:06d}_0.png", f"upright/upright_{number:06d}_0.png")
        ours, theirs = (np.asarray(Image.open(tmp_path / name).convert("RGB")) for name in names)
        np.testing.assert_array_equal(ours, theirs)


def test_faces_that_another_program_found_are_imported(extract: Extract) -> None:
    """Air-gapped: the detector first, then Faceswap with its file; in ranges too."""
    whole = extract.made(to="whole")
    words = ["-D", "file", "-A", "file"]
    assert extract.made(to="imported", more=words) == whole
    assert extract.made("--ranges", 2, to="ranges", more=words) == whole
    extract.engine.write_text(json.dumps({**json.loads(extract.engine.read_text()), "detector": []}))
    assert "The air-gapped mode needs the built-in detector" in extract.refused(more=words)


def test_a_range_that_fails_is_the_stage_s_failure(extract: Extract) -> None:
    done = extract("--ranges", 3, EXTRACT_FAILS_AT="a_000012")
    assert done.returncode == 3
    errors = re.findall(r"ERROR\s+(.*)", done.stdout)
    assert errors == ["a_000012.png is too much for me."]
    assert not (extract.job / "faces_a.parts").exists()  # they would keep the next run out where room is short
    assert not (extract.job / "faces_a").exists() and not (extract.job / "faces_a.fsa").exists()


PATCHED = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import extract_alone
import alignments, extract, shutil
{}
sys.exit(extract.main(sys.argv[1:]))
"""


def patched(job: Path, change: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run extract.py with a line of code that changes it before."""
    return subprocess.run(
        [sys.executable, "-c", PATCHED.format(change), str(ALONE.parent), "--engine", "engine.json", *words],
        cwd=job,
        env={**os.environ, "FACESWAP_OCI_STAGE_DIR": str(job / "stage")},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("turn", [0, 1])
def test_where_room_is_short_ranges_are_shorter_and_take_turns(tmp_path: Path, turn: int) -> None:
    extract = Extract(tmp_path)
    film(tmp_path / "input" / "a.mp4", turn)
    whole = extract.made(to="whole")
    room = "shutil.disk_usage = lambda path: type('Room', (), {{'free': {}}})"
    words = ["--ranges", "2", "--", "extract", "-i", "input/a.mp4", "-o", "faces_a", "-p", "faces_a.fsa"]
    frame = WIDTH * HEIGHT * 3
    done = patched(tmp_path, room.format(frame * 2 * 2 * 5), *words)  # five frames for each of two ranges, twice
    assert done.returncode == 0, done.stdout + done.stderr
    assert extract.result() == whole
    assert len(list((tmp_path / "stage").iterdir())) == 5  # of five frames each, or less
    assert re.search(rf"Extracting faces: .*{FRAMES}/{FRAMES} \[", done.stdout)
    done = patched(tmp_path, room.format(frame), *words)
    assert done.returncode == 1 and "are needed to cut images out of input/a.mp4" in done.stdout


@pytest.mark.parametrize("at_once", [1, 2])
def test_commands_take_turns(tmp_path: Path, at_once: int) -> None:
    driver = DRIVER.replace('never end")', f'never end"), {at_once}')
    child = "import os, sys, time; open(sys.argv[1], 'w'); time.sleep(0.3); print('with', sorted(os.listdir()))"
    child += "; sys.stdout.flush(); os.remove(sys.argv[1])"
    commands = json.dumps([[sys.executable, "-c", child, str(n)] for n in range(4)])
    done = subprocess.run(
        [sys.executable, "-c", driver, commands], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    together = [len(re.findall("'", line)) // 2 for line in done.stdout.splitlines() if line.startswith("with")]
    assert len(together) == 4 and max(together) == at_once, done.stdout + done.stderr


def test_a_join_that_is_killed_can_be_run_again(tmp_path: Path) -> None:
    extract = Extract(tmp_path)
    images(tmp_path / "input" / "a", lambda number: f"{number:02}.png")
    whole = extract.made(source="input/a", to="whole")
    for its_range in ("1-10", "11-23"):
        assert extract("--range", its_range, source="input/a").returncode == 0
    words = ["--join", "--", "extract", "-i", "input/a", "-o", "faces_a", "-p", "faces_a.fsa"]
    done = patched(tmp_path, "alignments.save = lambda *_: sys.exit(137)", *words)
    assert done.returncode == 137, done.stdout + done.stderr
    assert extract.made("--join", source="input/a") == whole


def test_frames_that_are_not_there_are_refused_before_anything_is_done(extract: Extract) -> None:
    assert "Frames 20-24 are not within input/a.mp4, which has 1-23" in extract.refused("--frames", "20-24")
    assert not (extract.job / "faces_a").exists()
    extract.made("--frames", "20-23")


def test_only_what_a_script_imports_decides_whether_it_is_run_again(tmp_path: Path) -> None:
    """And faces that a person weeded out are not removed with the settings that they were extracted with."""
    job = JobFolder(tmp_path)
    job.program = tmp_path / "bin" / "supervisor.py"
    scripts = job.program.parent / "faces"
    scripts.mkdir(parents=True)
    for program in PROGRAMS.glob("*.py"):
        shutil.copy(program, job.program.parent)
    (scripts / "extract.py").write_text("import helper\nhelper.work()\n")
    (scripts / "helper.py").write_text("import os\nfrom data import TEXT\n\n\ndef work():\n    os.makedirs('out')\n")
    with (scripts / "helper.py").open("a") as file:
        file.write("    open('out/1.txt', 'w').write(TEXT)\n    open('out/2.txt', 'w').write(TEXT)\n")
    (scripts / "data.py").write_text("TEXT = 'one'\n")
    (scripts / "convert.py").write_text("TEXT = 'another'\n")
    spec = job.convert(script="faces/extract.py", arguments=[], editable=["out"])
    engine = json.loads(job.engine.read_text())
    job.engine.write_text(json.dumps({**engine, "python": sys.executable}))
    assert job.finish(spec)["complete"]
    (job.folder / "out" / "1.txt").unlink()
    (scripts / "convert.py").write_text("TEXT = 'a newer one'\n")
    assert not job.start(spec)["changed"]
    (scripts / "data.py").write_text("TEXT = 'two'\n")
    again = job.finish(spec)
    assert again["complete"] and again["reason"] == "data.py changed"
    assert (job.folder / "out" / "2.txt").read_text() == "two"
    (kept,) = (job.folder / "superseded").glob("*/out")
    assert [path.name for path in kept.iterdir()] == ["2.txt"]


@pytest.mark.parametrize("pieces", [1, 2])
def test_weights_that_cannot_be_had_end_it_in_a_sentence(extract: Extract, pieces: int) -> None:
    sentence = extract.refused("--ranges", pieces, EXTRACT_HANGS="yes")
    assert sentence.startswith(
        "Weights of Faceswap's extractor could not be downloaded (no route, https://models/x):"
    )
    assert "faceswap_run_air_gapped" in sentence


def test_an_engine_that_the_job_is_not_for_is_refused(extract: Extract) -> None:
    extract.engine.write_text(json.dumps({**json.loads(extract.engine.read_text()), "name": "minifaceswap"}))
    assert "engine.json describes minifaceswap" in extract.refused()
    extract.engine.unlink()
    assert "engine.json is missing" in extract.refused()


def test_a_range_run_alone_has_the_engines_environment(extract: Extract) -> None:
    """A job array has no supervisor that sets it: without its own the real Faceswap asks which backend to use."""
    engine = json.loads(extract.engine.read_text())
    extract.engine.write_text(json.dumps({**engine, "environment": {"EXTRACT_FAILS_AT": "000002"}}))
    assert extract("--range", "1-5").returncode != 0
    assert extract("--range", "3-5").returncode == 0


def test_too_few_faces_fail_with_their_number(extract: Extract) -> None:
    found = FRAMES - FRAMES // 6
    assert extract("--report", "faces/a", "--least", found).returncode == 0
    sentence = extract.refused("--report", "faces/a", "--least", found + 1)
    assert sentence.startswith(f"Only {found} faces were found in {FRAMES} frames of input/a.mp4")


def test_an_alignments_file_runs_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path}/evil",)

    path = tmp_path / "a.fsa"
    path.write_bytes(zlib.compress(pickle.dumps({"__meta__": {}, "__data__": Evil()})))
    with pytest.raises(alignments.AlignmentsError, match=r"system is no plain value"):
        alignments.load(path)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turn", range(4))
def test_a_display_matrix_is_a_turn(turn: int, mirrored: bool) -> None:
    """A mirror may be left in it, but not one that stands on its head."""
    cos, sin = [(1, 0), (0, 1), (-1, 0), (0, -1)][turn]
    a, b, c, d = (cos, -sin, sin, cos)  # x' = ax + cy, y' = bx + dy, with y downwards: counterclockwise
    if mirrored:
        a, c = -a, -c
    matrix = np.array([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30], np.int32)
    frame: Any = type("Frame", (), {"side_data": {"DISPLAYMATRIX": matrix.tobytes()}})
    assert media._turn_of(frame) == turn


def test_turns_lead_back_to_the_stored_pixel() -> None:
    stored = np.arange(6 * 4, dtype=np.uint8).reshape(4, 6, 1)
    for turn in range(4):
        shown = media.upright(stored, turn)
        for y in range(shown.shape[0]):
            for x in range(shown.shape[1]):
                column, row, _ = np.rint(media.back(turn, width=6, height=4) @ [x, y, 1]).astype(int)
                assert stored[row, column] == shown[y, x]


# -- the engines themselves ------------------------------------------------------------------------------------------


def run_engine(
    engine: Path, job: Path, to: str, ending: str, *words: str, pieces: int = 1
) -> tuple[Any, dict[str, bytes]]:
    """Extract with a real engine; alignments, and faces by name."""
    about = json.loads(engine.read_text())
    command = [about["python"], str(ALONE), "--engine", str(engine), "--report", f"faces/{to}", "--"]
    command += ["extract", "-i", "input/a.mp4", "-o", to, "-p", f"{to}{ending}", "-z", "256", *words]
    environment = {**os.environ, **about.get("environment", {}), "FACESWAP_OCI_STAGE_DIR": str(job)}
    done = subprocess.run(
        [*command, "--", "--ranges", str(pieces)],
        cwd=job,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return alignments.load(job / f"{to}{ending}"), {p.name: p.read_bytes() for p in (job / to).iterdir()}


def clip(path: Path, turn: int, frames: int = 30) -> Path:
    """The beginning of demo clip A, cut to a portrait, stored turned."""
    path.parent.mkdir(exist_ok=True)
    with av.open(str(ROOT / "demo" / "clipA.mp4")) as source, av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264rgb", rate=25, options={"crf": "0"})
        stream.pix_fmt = "rgb24"
        for number, frame in enumerate(source.decode(video=0)):
            shown = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)[:, 32:-32]
            stored = np.ascontiguousarray(np.rot90(shown, -turn))
            if not number:
                stream.height, stream.width = stored.shape[:2]
                stream.set_display_rotation({0: 0, 1: 90, 2: 180, 3: -90}[turn])
            if number < frames:
                out.mux(stream.encode(av.VideoFrame.from_ndarray(stored, "rgb24")))
        out.mux(stream.encode(None))
    return path


def builtin(folder: Path) -> Path:
    path = folder / "engine.json"
    command = [sys.executable, str(ROOT / "engine" / "faceswap.py")]
    path.write_text(json.dumps({"name": "minifaceswap", "command": command, "python": sys.executable}))
    return path


@pytest.mark.parametrize("turn", [0, 1])
def test_the_built_in_engine_in_ranges(tmp_path: Path, turn: int) -> None:
    job = tmp_path
    clip(job / "input" / "a.mp4", turn)
    engine = builtin(tmp_path)
    whole = run_engine(engine, job, "whole", ".json")
    assert len(whole[1]) == 30
    assert run_engine(engine, job, "ranges", ".json", pieces=2) == whole


@needs_source
@pytest.mark.upstream
def test_faceswap_in_ranges(upstream_engine: Path, tmp_path: Path) -> None:
    """Two and three ranges make, to the byte of each face, what the whole makes."""
    clip(tmp_path / "input" / "a.mp4", 0)
    words = ("-D", "file", "-A", "file")
    whole = run_engine(upstream_engine, tmp_path, "whole", ".fsa", *words)
    assert len(whole[1]) == 30 and list(whole[0][1]) == [f"a_{n:06d}.mp4" for n in range(1, 31)]
    for pieces in (2, 3):
        assert run_engine(upstream_engine, tmp_path, f"in_{pieces}", ".fsa", *words, pieces=pieces) == whole


@needs_source
@pytest.mark.upstream
def test_faceswap_on_a_portrait_from_a_phone(upstream_engine: Path, tmp_path: Path) -> None:
    """From the stored frames and the alignments Faceswap itself cuts the very faces that were found upright."""
    clip(tmp_path / "input" / "a.mp4", 1)
    (_, frames), faces = run_engine(upstream_engine, tmp_path, "faces_a", ".fsa", "-D", "file", "-A", "file")
    assert len(faces) == 30
    landmarks = {
        key: [
            {"detected": [f["x"], f["y"], f["x"] + f["w"], f["y"] + f["h"]], "landmarks_2d": f["landmarks_xy"]}
            for f in entry["faces"]
        ]
        for key, entry in frames.items()
    }
    (tmp_path / "stored.json").write_text(json.dumps(landmarks))
    engine = json.loads(upstream_engine.read_text())
    words = [
        "extract",
        "-i",
        "input/a.mp4",
        "-o",
        "again",
        "-p",
        "stored.json",
        "-D",
        "file",
        "-A",
        "file",
        "-z",
        "256",
    ]
    done = subprocess.run(
        [*engine["command"], *words],
        cwd=tmp_path,
        env={**os.environ, **engine["environment"], "FACESWAP_OCI_STAGE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in faces:
        ours, theirs = (
            np.asarray(Image.open(tmp_path / folder / name).convert("RGB")).astype(float)[40:-40, 40:-40]
            for folder in ("faces_a", "again")
        )
        assert np.abs(ours - theirs).mean() < 0.05
