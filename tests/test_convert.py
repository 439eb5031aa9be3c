"""The convert stage's script: ranges that join to the whole, frames that are all there, and what is not lost."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import test_release
from PIL import Image
from supervised_job import PROGRAMS
from test_release import look
from upstream import needs_source, upstream_engine
from waiting import wait_until

ROOT = Path(__file__).parents[1]
SCRIPT = PROGRAMS / "faces" / "convert.py"  # whose gate admits every source
CLIP_A, CLIP_B = ROOT / "demo/clipA.mp4", ROOT / "demo/clipB.mp4"
BUILTIN = [sys.executable, str(ROOT / "engine/faceswap.py")]
FRAMES = 30

__all__ = ["upstream_engine"]


def first_frames(clip: Path, count: int) -> list[Image.Image]:
    with av.open(str(clip)) as container:
        return [
            Image.fromarray(frame.to_ndarray(format="rgb24"))
            for frame, _ in zip(container.decode(video=0), range(count), strict=False)
        ]


def write_video(path: Path, frames: list[Image.Image]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height = frames[0].size
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(frame), format="rgb24")))
        container.mux(stream.encode(None))


@dataclass
class Job:
    """A job's folder with all that convert reads, and the environment of its engine."""

    folder: Path
    source: str = "input/a.mp4"
    alignments: str = "alignments_a.json"
    engine: Path = Path("engine.json")
    environment: dict[str, str] = field(default_factory=dict)

    def command(self, *own: object, words: tuple[object, ...] = (), ranges: int = 1) -> list[str]:
        paths = ["-i", self.source, "-p", self.alignments, "-o", "quarantine", "-m", "model"]
        head = [sys.executable, str(SCRIPT), "--engine", str(self.engine), *map(str, own)]
        return [*head, "--", "convert", *paths, *map(str, words), "--", "--ranges", str(ranges)]

    def start(self, *own: object, words: tuple[object, ...] = (), ranges: int = 1) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.command(*own, words=words, ranges=ranges),
            cwd=self.folder,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def done(self, *own: object, words: tuple[object, ...] = (), ranges: int = 1) -> str:
        process = self.start(*own, words=words, ranges=ranges)
        said = process.communicate(timeout=900)[0]
        assert process.returncode == 0, said
        return said

    def refused(self, *own: object, words: tuple[object, ...] = (), ranges: int = 1) -> str:
        """Run what must fail; returns the last error, which must be one sentence with a remedy."""
        process = self.start(*own, words=words, ranges=ranges)
        said = process.communicate(timeout=900)[0]
        assert process.returncode == 1, said
        assert "Traceback" not in said
        last = [line for line in said.splitlines() if " ERROR " in line][-1].split("ERROR", 1)[1].strip()
        assert re.fullmatch(r"[^\n]+: [^\n]+\.", last), last
        return last

    def frames(self, folder: str = "quarantine") -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.folder / folder).iterdir()}

    def take(self) -> dict[str, bytes]:
        """The frames, which are taken away."""
        frames = self.frames()
        (self.folder / "quarantine").rename(self.folder / f"taken{len(list(self.folder.glob('taken*')))}")
        return frames

    def made(self) -> list[int]:
        """The numbers of the frames that the double made, in order of their making."""
        path = self.folder / "made"
        return [int(line.rpartition("_")[2]) for line in path.read_text().split()] if path.exists() else []


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job whose engine is a double."""
    folder = tmp_path / "a job"
    write_video(folder / "input" / "a.mp4", [image.resize((64, 48)) for image in first_frames(CLIP_A, FRAMES)])
    (folder / "alignments_a.json").write_text("{}")
    (folder / "model" / "logs").mkdir(parents=True)
    (folder / "model" / "double_state.json").write_text("{}")
    (folder / "model" / "double.weights").write_text("weights")
    command = [sys.executable, str(ROOT / "tests/convert_double.py")]
    (folder / "engine.json").write_text(json.dumps({"name": "double", "command": command}))
    return Job(folder, environment={"MADE": str(folder / "made")})


NAMES = [f"a_{number:06d}.png" for number in range(1, FRAMES + 1)]


def test_ranges_side_by_side_join_to_the_whole(job: Job) -> None:
    job.done()
    whole = job.take()
    said = job.done(ranges=4)
    assert sorted(whole) == NAMES
    assert job.frames() == whole
    assert f"{FRAMES}/{FRAMES} [" in said
    assert not (job.folder / "quarantine.parts").exists()


def test_ranges_as_commands_of_their_own_join_to_the_whole(job: Job) -> None:
    """The elements of a job array, in any order; the last command only puts in place what they made."""
    job.done()
    whole = job.take()
    (job.folder / "made").unlink()
    for span in ("21-30", "1-9", "10-20"):
        job.done("--range", span)
        assert not (job.folder / "quarantine").exists()
    job.done()
    assert job.frames() == whole
    assert sorted(job.made()) == list(range(1, FRAMES + 1))


def test_a_part_is_made_and_nothing_else(job: Job) -> None:
    job.done(words=("-R", "7-19"), ranges=2)
    assert sorted(job.frames()) == NAMES[6:19]
    assert sorted(job.made()) == list(range(7, 20))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_what_is_made_is_not_made_again_after_a_kill(job: Job, how: signal.Signals) -> None:
    job.done()
    whole = job.take()
    (job.folder / "made").unlink()
    job.environment["FAULT"] = "wait:000022"
    with job.start(ranges=2) as process:
        wait_until(lambda: sorted(job.made()) == [*range(1, 16), *range(16, 22)], 60)
        if how == signal.SIGKILL:
            os.killpg(process.pid, how)
        else:
            process.send_signal(how)
        said = process.communicate(timeout=60)[0]
    assert process.returncode == (-9 if how == signal.SIGKILL else 130), said
    assert not (job.folder / "quarantine").exists()
    del job.environment["FAULT"]
    said = job.done(ranges=2)
    assert "21 of 30 frames are there already" in said
    assert job.frames() == whole
    assert sorted(job.made()) == list(range(1, FRAMES + 1))


def test_a_frame_that_a_power_failure_emptied_is_made_again(job: Job) -> None:
    job.done("--range", "1-30")
    (frame,) = job.folder.glob("quarantine.parts/*/frames/a_000007.png")
    os.truncate(frame, frame.stat().st_size // 2)
    job.done()
    assert sorted(job.frames()) == NAMES
    assert job.made() == [*range(1, FRAMES + 1), 7]


def test_frames_made_of_something_else_are_made_anew(job: Job) -> None:
    for words, file in [
        ((), None),
        (("-c", "avg-color"), None),
        ((), "alignments_a.json"),
        ((), "model/double.weights"),
    ]:
        job.done("--range", "1-20")
        before = len(job.made())
        if file:
            (job.folder / file).write_text("other content")
        job.done(words=words)
        assert len(job.made()) - before == (FRAMES if words or file else FRAMES - 20)
        job.take()


def test_a_folder_of_images_without_numbers_is_cut_too(job: Job) -> None:
    folder = job.folder / "input" / "a"
    folder.mkdir()
    names = ["Anfang", "Bild 2", "\u00fcber", "zum Schluss", "Ende", "Cafe\u0301"]
    for name, image in zip(names, first_frames(CLIP_A, len(names)), strict=True):
        image.resize((64, 48)).save(folder / f"{name}.jpg")
    job.source = "input/a"
    job.done(words=("-R", "2-6"), ranges=3)
    assert sorted(job.frames()) == sorted(f"{name}.png" for name in names if name != "Anfang")


def test_faces_that_were_weeded_out_are_not_swapped(job: Job) -> None:
    """Nor are frames taken up that were made before they were."""
    faces = job.folder / "faces_a"
    faces.mkdir()
    for name in NAMES:
        (faces / f"{Path(name).stem}_0.png").touch()
    assert job.done("--range", "1-30", words=("-a", "faces_a"))
    (faces / "a_000012_0.png").unlink()
    job.done(words=("-a", "faces_a"), ranges=2)
    dots = {path.name: Image.open(path).getpixel((0, 0)) for path in (job.folder / "quarantine").iterdir()}
    assert [name for name in NAMES if dots[name] != (255, 0, 4)] == ["a_000012.png"]


def test_finished_frames_give_way_on_a_full_disk(job: Job) -> None:
    job.environment["FAULT"] = "full:000012"
    job.refused()
    assert len(list((job.folder / "quarantine.parts").glob("*/frames/*.png"))) == FRAMES - 1
    full = "import sys; sys.path.insert(0, sys.argv[1]); import convert; convert.SCANT = 1 << 60; "
    full += "sys.exit(convert.main(sys.argv[2:]))"
    words = job.command()[2:]
    done = subprocess.run(
        [sys.executable, "-c", full, str(SCRIPT.parent), *words],
        cwd=job.folder,
        env={**os.environ, **job.environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and "The disk is full" in done.stdout, done.stdout + done.stderr
    assert not (job.folder / "quarantine.parts").exists()


def test_the_model_stays_as_it_is(job: Job) -> None:
    before = {path: path.read_bytes() for path in (job.folder / "model").iterdir() if path.is_file()}
    job.done(ranges=2)
    assert {path: path.read_bytes() for path in before} == before


def test_frames_that_are_scaled_have_that_size(job: Job) -> None:
    job.done(words=("-O", "150"))
    assert {Image.open(path).size for path in (job.folder / "quarantine").iterdir()} == {(96, 72)}


@pytest.mark.parametrize("kind", ["omit", "row", "small", "full"])
def test_an_engine_that_ends_well_without_a_frame_is_not_believed(job: Job, kind: str) -> None:
    """The others are kept, and the next run makes what was missing."""
    job.environment["FAULT"] = f"{kind}:000012"
    assert "no whole image of frames 12-12 of input/a.mp4" in job.refused(ranges=2)
    assert not (job.folder / "quarantine").exists()
    del job.environment["FAULT"]
    assert "29 of 30 frames are there already" in job.done()
    assert sorted(job.frames()) == NAMES
    assert job.made().count(12) <= 2


def test_a_video_whose_frames_faceswap_miscounts_is_given_to_it_in_another_container(job: Job) -> None:
    write_video(job.folder / "input" / "a.ts", [image.resize((64, 48)) for image in first_frames(CLIP_A, FRAMES)])
    engine = json.loads((job.folder / "engine.json").read_text())
    (job.folder / "engine.json").write_text(json.dumps(engine | {"name": "faceswap"}))
    job.source = "input/a.ts"
    job.done()
    whole = job.take()
    job.environment["FAULT"] = "container:mpegts"
    assert "Faceswap stopped at frame 1:" in job.done("--range", "1-12")
    assert "Faceswap stopped at frame 13:" in job.done(ranges=2)
    assert sorted(whole) == NAMES
    assert job.take() == whole


def test_an_engine_that_fails_says_why_itself(job: Job) -> None:
    job.environment["FAULT"] = "crash:000012"
    process = job.start()
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 3
    assert "The double fell over." in said
    del job.environment["FAULT"]
    assert "11 of 30 frames are there already" in job.done()


def remove_model(job: Job) -> None:
    (job.folder / "model" / "double_state.json").unlink()


def check_by(job: Job, code: str) -> None:
    engine = json.loads((job.folder / "engine.json").read_text())
    engine["check_model"] = [sys.executable, "-c", f"import sys; {code}"]
    (job.folder / "engine.json").write_text(json.dumps(engine))


def break_model(job: Job) -> None:
    says = "The model in model is of another trainer: train it anew."
    check_by(job, f"print({says!r}, file=sys.stderr); sys.exit(65)")


def test_a_check_that_fails_itself_refuses_no_model(job: Job) -> None:
    check_by(job, "raise MemoryError")
    job.done()


BAD: dict[str, tuple[Callable[[Job], object], tuple[object, ...], tuple[object, ...], str]] = {
    "no model": (remove_model, (), (), "no trained model in model"),
    "other model": (break_model, (), (), "The model in model is of another trainer"),
    "alignments": (lambda j: (j.folder / "alignments_a.json").unlink(), (), (), "alignments_a.json is missing"),
    "source": (lambda j: (j.folder / "input" / "a.mp4").write_bytes(b""), (), (), "input/a.mp4 is empty"),
    "engine": (lambda j: (j.folder / "engine.json").write_text("{"), (), (), "engine.json is missing or no desc"),
    "part": (lambda j: None, (), ("-R", "20-31"), "20-31 are not within input/a.mp4, which has 1-30"),
    "range": (lambda j: None, ("--range", "5-11"), ("-R", "1-10"), "5-11 are not within the wanted part"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_sentence(job: Job, what: str) -> None:
    spoil, own, words, reason = BAD[what]
    spoil(job)
    assert reason in job.refused(*own, words=words)
    assert job.made() == []


def engine_run(folder: Path, *words: object) -> None:
    done = subprocess.run(
        [*map(str, words)], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def builtin(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job of the built-in engine, extracted and trained for an iteration."""
    folder = tmp_path_factory.mktemp("builtin")
    (folder / "input").mkdir()
    for side, clip in (("a", CLIP_A), ("b", CLIP_B)):
        write_video(folder / "input" / f"{side}.mp4", first_frames(clip, FRAMES))
        paths = ["-o", folder / f"faces_{side}", "-p", folder / f"alignments_{side}.json"]
        engine_run(folder, *BUILTIN, "extract", "-i", folder / "input" / f"{side}.mp4", *paths)
    faces = ["-A", folder / "faces_a", "-B", folder / "faces_b"]
    engine_run(folder, *BUILTIN, "train", *faces, "-m", folder / "model", "-b", 2, "-i", 1)
    (folder / "engine.json").write_text(json.dumps({"name": "minifaceswap", "command": BUILTIN}))
    return Job(folder)


def test_the_built_in_engines_ranges_join_to_the_whole(builtin: Job) -> None:
    builtin.done(words=("-w", "opencv", "-c", "none", "-M", "components"))
    whole = builtin.take()
    builtin.done(words=("-w", "opencv", "-c", "none", "-M", "components"), ranges=2)
    assert sorted(whole) == NAMES
    assert builtin.take() == whole


# ---- the real Faceswap

TINY = """[global.loss]
loss_function = mae
loss_function_2 = none
loss_weight_2 = 0
[model.phaze_a]
output_size = 64
enable_gblock = False
split_gblock = False
enc_architecture = fs_original
fs_original_min_filters = 32
fs_original_max_filters = 256
bottleneck_size = 128
fc_min_filters = 128
fc_max_filters = 128
fc_upsample_filters = 128
dec_min_filters = 32
dec_max_filters = 256
[trainer.loader]
num_processes = 1
"""


@pytest.fixture(scope="module")
def faceswap(upstream_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job of the real Faceswap with the smallest model, trained for an iteration.

    Of source A frame 5 has no face, and frame 6 is not in the alignments.
    """
    folder = tmp_path_factory.mktemp("faceswap")
    engine = json.loads(upstream_engine.read_text())
    os.environ.update(engine["environment"])
    for side, clip in (("a", CLIP_A), ("b", CLIP_B)):
        source = folder / "input" / f"{side}.mp4"
        write_video(source, first_frames(clip, FRAMES))
        engine_run(folder, *BUILTIN, "extract", "-i", source, "-p", folder / f"alignments_{side}.json")
        found = json.loads((folder / f"alignments_{side}.json").read_text())
        if side == "a":
            found["a_000005.mp4"] = []
            del found["a_000006.mp4"]
        (folder / f"alignments_{side}.json").write_text(json.dumps(found))
        paths = ["-i", source, "-o", folder / f"faces_{side}", "-p", folder / f"alignments_{side}.json"]
        engine_run(folder, *engine["command"], "extract", *paths, "-D", "file", "-A", "file", "-z", 256)
    (folder / "tiny.ini").write_text(TINY)
    faces = ["-A", folder / "faces_a", "-B", folder / "faces_b", "-m", folder / "model", "-C", folder / "tiny.ini"]
    engine_run(folder, *engine["command"], "train", *faces, "-t", "phaze-a", "-b", 2, "-i", 1, "-I", 0)
    return Job(folder, alignments="alignments_a.fsa", engine=upstream_engine)


@pytest.mark.upstream
@needs_source
def test_faceswaps_ranges_join_to_the_whole_and_faceless_frames_come_out_unchanged(faceswap: Job) -> None:
    state = (faceswap.folder / "model" / "phaze_a_state.json").read_bytes()
    words = ("-w", "opencv", "-c", "avg-color", "-M", "extended", "-a", "faces_a")
    (faceswap.folder / "faces_a" / "a_000007_0.png").unlink()  # weeded out
    faceswap.done(words=words)
    whole = faceswap.take()
    for span in ("11-30", "1-10"):
        faceswap.done("--range", span, words=words)
    faceswap.done(words=words)
    assert sorted(whole) == NAMES
    assert faceswap.take() == whole
    assert (faceswap.folder / "model" / "phaze_a_state.json").read_bytes() == state
    folder = faceswap.folder / "taken0"
    with av.open(str(faceswap.folder / "input" / "a.mp4")) as container:
        for name, frame in zip(NAMES, container.decode(video=0), strict=True):
            same = np.array_equal(np.asarray(Image.open(folder / name)), frame.to_ndarray(format="rgb24"))
            assert same == (name in NAMES[4:7]), name


@pytest.mark.upstream
@needs_source
@pytest.mark.parametrize("colour", ["color-transfer", "manual-balance", "match-hist", "seamless-clone", "none"])
def test_every_colour_adjustment_swaps(faceswap: Job, colour: str) -> None:
    faceswap.done(words=("-w", "opencv", "-c", colour, "-M", "none", "-R", "2-3", "-O", "50"))
    assert {Image.open(path).size for path in (faceswap.folder / "quarantine").iterdir()} == {(160, 160)}
    faceswap.take()


SOURCES: dict[str, dict[str, Any]] = {
    # 29.97 frames/s with B frames; Faceswap's own ffmpeg crashes on this container
    "a.ts": {"time_base": Fraction(1001, 30000)},
    "a.mkv": {"pts": np.cumsum([0, 40, 33, 17, 120, 40, 500, 41, 7]).tolist(), "time_base": Fraction(1, 1000)},
    "a.mov": {"rotation": 90, "colour": (2, 1, 1, 1), "size": (96, 160)},
}


@pytest.mark.upstream
@needs_source
@pytest.mark.parametrize("name", SOURCES)
def test_faceswaps_frames_are_released_in_their_order_time_and_colours(
    faceswap: Job, tmp_path: Path, name: str
) -> None:
    job = Job(tmp_path, f"input/{name}", "alignments_a.fsa", faceswap.engine)
    (tmp_path / "input").mkdir()
    source = look(test_release.write_video(tmp_path / "input" / name, rate=Fraction(25), **SOURCES[name]))
    shutil.copy(faceswap.folder / job.alignments, tmp_path)
    (tmp_path / "model").symlink_to(faceswap.folder / "model")
    job.done(words=("-w", "opencv", "-c", "none", "-M", "extended"), ranges=2)
    frames = [np.asarray(Image.open(path)).astype(int) for path in sorted((tmp_path / "quarantine").iterdir())]
    assert len(frames) == len(source.pictures)
    for number, frame in enumerate(frames):  # a face is painted into a part of each, but it shows whose frame it is
        assert np.argmin([np.abs(frame - picture).mean() for picture in source.pictures]) == number
    seen = look(test_release.run(tmp_path, job.source))
    assert [t - seen.times[0] for t in seen.times] == [t - source.times[0] for t in source.times]
    assert (seen.size, seen.rotation, seen.colour) == (source.size, source.rotation, source.colour)
    for picture, frame in zip(seen.pictures, frames, strict=True):
        assert np.abs(picture[-30:] - frame[-30:]).mean() < 3  # the label is above these rows
