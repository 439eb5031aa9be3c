"""The built-in engine through its command line, on short cuts of the demo clips."""

import itertools
import json
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
CLIP_A, CLIP_B = ROOT / "demo/clipA.mp4", ROOT / "demo/clipB.mp4"
FRAMES = 26  # of a cut; training asks for 25 faces
COMMAND = [sys.executable, str(ROOT / "engine/faceswap.py")]


def engine(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )


def done(*arguments: object) -> str:
    """Run the engine, which must succeed; returns its output."""
    result = engine(*arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def refused(*arguments: object) -> str:
    """Run the engine, which must refuse in one sentence and without a traceback; returns the sentence."""
    result = engine(*arguments)
    errors = [line for line in result.stdout.splitlines() if re.match(r"\d\d/\d\d/\d{4} [\d:]{8} ERROR ", line)]
    assert result.returncode == 1, result.stdout + result.stderr
    assert len(errors) == 1, result.stdout
    assert "Traceback" not in result.stdout + result.stderr
    return errors[0].split("ERROR", 1)[1].strip()


def encode(path: Path, frames: list[np.ndarray], **options: str) -> Path:
    """Write frames as an h264 video of 25 per second."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def first_frames(clip: Path) -> list[np.ndarray]:
    with av.open(str(clip)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in itertools.islice(container.decode(video=0), FRAMES)]


def arrays(model: Path) -> dict[str, np.ndarray]:
    with np.load(model / "lightweight.npz") as content:
        return dict(content)


def iterations(model: Path) -> int:
    """What the state file says; it must agree with the checkpoint."""
    stated = json.loads((model / "lightweight_state.json").read_text())["iterations"]
    assert stated == arrays(model)[".iteration"]
    return int(stated)


def same(one: Path, other: Path) -> bool:
    a, b = arrays(one), arrays(other)
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


@dataclass(frozen=True)
class Job:
    """A folder of images of A (its last frame shows no face), a video of B, what extract made, and a model."""

    a: Path
    b: Path
    alignments: Path
    faces_a: Path
    faces_b: Path
    model: Path

    def train(self, model: Path, *more: object) -> list[object]:
        return ["train", "-A", self.faces_a, "-B", self.faces_b, "-m", model, "-b", 2, *more]

    def convert(self, output: Path, *more: object) -> list[object]:
        return ["convert", "-i", self.a, "-p", self.alignments, "-m", self.model, "-o", output, *more]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("a job")
    result = Job(*(folder / name for name in ("a", "b.mp4", "a.json", "faces_a", "faces_b", "model")))
    result.a.mkdir()
    for number, frame in enumerate([*first_frames(CLIP_A), np.full((320, 320, 3), 90, np.uint8)], 1):
        Image.fromarray(frame).save(result.a / f"still{number:03d}.png")
    encode(result.b, first_frames(CLIP_B))
    done("extract", "-i", result.a, "-o", result.faces_a, "-p", result.alignments)
    done("extract", "-i", result.b, "-o", result.faces_b)
    done(*result.train(result.model, "-i", 4))
    return result


# ---- options


FACESWAP_OPTIONS = {
    "extract": "-i --input-dir -p --alignments -o --output-dir -z --size -N --extract-every-n",
    "train": "-A --input-A -B --input-B -m --model-dir -t --trainer -b --batch-size -i --iterations "
    "-s --save-interval --seed",
    "convert": "-i --input-dir -p --alignments -o --output-dir -m --model-dir -c --color-adjustment "
    "-M --mask-type -w --writer -R --frame-ranges",
}


@pytest.mark.parametrize("command", FACESWAP_OPTIONS)
def test_options_bear_faceswaps_names(command: str) -> None:
    """All but --seed are Faceswap's, and there are no others."""
    shown = done(command, "--help").split("options:")[1]
    assert set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", re.sub(r"(?m)^ {10,}.*", "", shown))) == {
        "-h",
        "--help",
        *FACESWAP_OPTIONS[command].split(),
    }


@pytest.mark.parametrize("command", [[], ["extract"], ["train"], ["convert"]])
def test_help_says_that_it_is_a_demonstration(command: list[str]) -> None:
    text = " ".join(done(*command, "--help").split())
    assert "demonstration engine" in text
    assert "it is not Faceswap" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["extract", "-i", "x", "--normalization", "hist"],
        ["extract", "-i", "x", "-z", "128"],
        ["extract", "--input", "x"],
        ["train", "-A", "x", "-B", "y", "-m", "z", "-i", "0"],
        ["train", "-A", "x", "-B", "y", "-m", "z", "-i", "-5"],
        ["train", "-A", "x", "-B", "y", "-m", "z", "-t", "phaze-a"],
        ["convert", "-i", "x", "-o", "y", "-m", "z", "-w", "ffmpeg"],
        ["convert", "-i", "x", "-o", "y", "-m", "z", "-R", "5-2"],
        ["convert", "-i", "x", "-o", "y", "-m", "z", "-R", "0-2"],
        ["preview"],
    ],
    ids=" ".join,
)
def test_an_option_that_is_not_known_or_out_of_range_is_an_error(arguments: list[str]) -> None:
    result = engine(*arguments)
    assert result.returncode == 2
    assert "error:" in result.stderr
    assert "Traceback" not in result.stderr


# ---- extract


def test_extract_writes_what_faceswap_imports(job: Job, tmp_path: Path) -> None:
    b_json = job.b.with_name("b_alignments.json")  # the default place
    content = json.loads(b_json.read_text())
    assert list(content) == [f"b_{number:06d}.mp4" for number in range(1, FRAMES + 1)]
    for faces in content.values():
        (face,) = faces
        left, top, right, bottom = face["detected"]
        x, y = np.array(face["landmarks_2d"]).T
        assert x.shape == (68,)
        assert 0 < left <= x.min() + 1 and x.max() - 1 <= right < 320
        assert 0 < top <= y.min() + 1 and y.max() - 1 <= bottom < 320
    names = sorted(path.name for path in job.faces_b.iterdir())
    assert names == [f"b_{number:06d}_0.png" for number in range(1, FRAMES + 1)]
    assert Image.open(job.faces_b / names[0]).size == (256, 256)


def test_a_frame_without_a_face_is_kept_as_empty(job: Job) -> None:
    content = json.loads(job.alignments.read_text())
    assert content.pop(f"still{FRAMES + 1:03d}.png") == []
    assert all(len(faces) == 1 for faces in content.values())
    assert len(content) == FRAMES == len(list(job.faces_a.iterdir()))


def test_every_nth_frame_and_face_size(job: Job, tmp_path: Path) -> None:
    done("extract", "-i", job.b, "-o", tmp_path / "faces", "-p", tmp_path / "b.json", "-N", 10, "-z", 320)
    keys = ["b_000001.mp4", "b_000011.mp4", "b_000021.mp4"]
    assert list(json.loads((tmp_path / "b.json").read_text())) == keys
    assert {Image.open(path).size for path in (tmp_path / "faces").iterdir()} == {(320, 320)}


def test_landmarks_lie_on_the_face(job: Job) -> None:
    """Against what can be seen in the first frame of clip A: pupils, nose tip and mouth, within 6 pixels."""
    points = np.array(json.loads(job.alignments.read_text())["still001.png"][0]["landmarks_2d"])
    seen = {"image-left eye": (125, 149), "image-right eye": (194, 148), "nose": (160, 195), "mouth": (160, 229)}
    found = (points[36:42].mean(0), points[42:48].mean(0), points[30:36].mean(0), points[60:68].mean(0))
    for (name, place), point in zip(seen.items(), found, strict=True):
        assert np.linalg.norm(point - place) < 6, name


# ---- train


def test_parts_equal_a_whole_and_seeds_matter(job: Job, tmp_path: Path) -> None:
    whole, parts, other = (tmp_path / name for name in ("whole", "parts", "other"))
    done(*job.train(whole, "-i", 5, "--seed", 7))
    done(*job.train(parts, "-i", 2, "--seed", 7))
    first = arrays(parts)
    done(*job.train(parts, "-i", 3))
    done(*job.train(other, "-i", 5, "--seed", 8))
    assert iterations(whole) == iterations(parts) == 5
    assert first[".iteration"] == 2
    assert first[".seed"] == 7
    assert same(whole, parts)
    assert not same(whole, other)


def test_progress_is_printed_as_faceswaps(job: Job, tmp_path: Path) -> None:
    lines = re.split(r"[\r\n]+", done(*job.train(tmp_path / "model", "-i", 2, "-s", 1)))
    progress = [re.fullmatch(r"\[\d\d:\d\d:\d\d\] \[#(\d+)\] Loss A: (\d\.\d+), Loss B: (\d\.\d+)", x) for x in lines]
    assert [int(match[1]) for match in progress if match] == [1, 2]
    assert "demonstration engine" in lines[0]


def test_each_save_keeps_the_one_before(job: Job, tmp_path: Path) -> None:
    model = tmp_path / "model"
    done(*job.train(model, "-i", 3, "-s", 2))
    with np.load(model / "lightweight.npz.bk") as backup:
        assert backup[".iteration"] == 2
    assert iterations(model) == 3


def test_sigint_saves_and_ends_well(job: Job, tmp_path: Path) -> None:
    model = tmp_path / "model"
    with subprocess.Popen([*COMMAND, *map(str, job.train(model))], stdout=subprocess.PIPE, bufsize=0) as process:
        output = read_until(process, b"[#00003]")
        process.send_signal(signal.SIGINT)
        output += process.stdout.read()  # type: ignore[union-attr]
        assert process.wait(60) == 0
    assert f"Stopped on request at iteration {iterations(model)}" in output.decode()
    assert iterations(model) >= 3
    done(*job.train(model, "-i", 1))


def test_a_kill_while_saving_loses_nothing(job: Job, tmp_path: Path) -> None:
    """Killed thrice just while the checkpoint is written, the model loads and goes on from what it had."""
    model, had = tmp_path / "model", 0
    for _ in range(3):
        command = [*COMMAND, *map(str, job.train(model, "-s", 1))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
            read_until(process, b"[Saved model]")
            while not (model / ".lightweight.npz.part").exists():
                assert process.poll() is None
            process.kill()
        now = int(arrays(model)[".iteration"])
        assert now > had
        had = now
    done(*job.train(model, "-i", 1))
    assert iterations(model) == had + 1


def test_a_kill_between_checkpoint_and_state_is_healed(job: Job, tmp_path: Path) -> None:
    """The checkpoint rules, from the first moment of the next run on."""
    model = tmp_path / "model"
    done(*job.train(model, "-i", 2))
    (model / "lightweight_state.json").write_text('{"iterations": 1}')
    with subprocess.Popen([*COMMAND, *map(str, job.train(model))], stdout=subprocess.PIPE, bufsize=0) as process:
        read_until(process, b"[#00003]")
        process.kill()
    assert iterations(model) == 2


def test_a_broken_checkpoint_is_named_and_left_alone(job: Job, tmp_path: Path) -> None:
    model = tmp_path / "model"
    done(*job.train(model, "-i", 2, "-s", 1))
    checkpoint = model / "lightweight.npz"
    half = checkpoint.read_bytes()[: checkpoint.stat().st_size // 2]
    checkpoint.write_bytes(half)
    backup = (model / "lightweight.npz.bk").read_bytes()
    for arguments in (job.train(model, "-i", 1), [*job.convert(tmp_path / "out"), "-m", model]):
        assert f"mv '{checkpoint}.bk' '{checkpoint}'" in refused(*arguments)
    assert checkpoint.read_bytes() == half
    assert (model / "lightweight.npz.bk").read_bytes() == backup
    checkpoint.write_bytes(backup)  # what the sentence says
    done(*job.train(model, "-i", 1))
    assert iterations(model) == 2


def read_until(process: subprocess.Popen[bytes], text: bytes) -> bytes:
    """The process's output up to and with a text, which must come."""
    assert process.stdout
    output = b""
    while text not in output:
        chunk = process.stdout.read(4096)
        assert chunk, output.decode()
        output += chunk
    return output


# ---- convert


@pytest.fixture(scope="module")
def converted(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    done(*job.convert(folder))
    return folder


def test_every_frame_comes_out_in_its_size(job: Job, converted: Path) -> None:
    assert sorted(path.name for path in converted.iterdir()) == sorted(path.name for path in job.a.iterdir())
    assert {Image.open(path).size for path in converted.iterdir()} == {(320, 320)}


def test_a_frame_without_a_face_stays_as_it_is(job: Job, converted: Path) -> None:
    name = f"still{FRAMES + 1:03d}.png"
    assert np.array_equal(np.asarray(Image.open(job.a / name)), np.asarray(Image.open(converted / name)))


def test_only_the_face_changes(job: Job, converted: Path) -> None:
    """Away from the landmarks' box, the forehead counted in, nothing changes; in its middle much does."""
    content = json.loads(job.alignments.read_text())
    for name in ("still001.png", "still013.png", "still026.png"):
        before, after = (np.asarray(Image.open(folder / name)).astype(int) for folder in (job.a, converted))
        change = np.abs(after - before).max(2)
        left, top, right, bottom = content[name][0]["detected"]
        outside = np.ones(change.shape, bool)
        outside[max(0, top - 45) : bottom + 8, max(0, left - 8) : right + 8] = False
        assert change[outside].max() == 0
        assert change[(top + bottom) // 2, (left + right) // 2] > 0


def test_a_frame_that_extract_left_out_stays_as_it_is(job: Job, converted: Path, tmp_path: Path) -> None:
    """As with -N of extract."""
    content = json.loads(job.alignments.read_text())
    del content["still002.png"]
    (tmp_path / "a.json").write_text(json.dumps(content))
    done(*job.convert(tmp_path / "out", "-R", "1-2"), "-p", tmp_path / "a.json")
    first, second = (np.asarray(Image.open(tmp_path / "out" / f"still00{n}.png")) for n in (1, 2))
    assert np.array_equal(first, np.asarray(Image.open(converted / "still001.png")))
    assert np.array_equal(second, np.asarray(Image.open(job.a / "still002.png")))


def test_a_video_s_colours_are_those_that_faceswap_sees(job: Job, tmp_path: Path) -> None:
    """And those that a range of it is cut into; of more than 8 bits swscale makes others on its way to RGB."""
    path = tmp_path / "ten.mkv"
    noise = np.random.default_rng(1)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
        for _ in range(3):
            picture = noise.integers(0, 255, (48, 64, 3), np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="bgr24")[..., ::-1] for frame in container.decode(video=0)]
    (tmp_path / "a.json").write_text('{"ten_000001.mkv": []}')
    words = ["-i", path, "-p", tmp_path / "a.json", "-m", job.model, "-o", tmp_path / "out"]
    done("convert", *words)
    made = [np.asarray(Image.open(file)) for file in sorted((tmp_path / "out").iterdir())]
    assert len(made) == 3 and all(map(np.array_equal, made, frames))


def test_ranges_join_to_the_whole(job: Job, converted: Path, tmp_path: Path) -> None:
    done(*job.convert(tmp_path / "one", "-R", "1-4", "20-27"))
    done(*job.convert(tmp_path / "two", "-R", "5-19"))
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / part).iterdir()} for part in ("one", "two"))
    assert len(one) == 12
    assert not one.keys() & two.keys()
    assert {**one, **two} == {path.name: path.read_bytes() for path in converted.iterdir()}


def test_looks_of_the_new_face(job: Job, tmp_path: Path) -> None:
    """avg-color keeps the mean colour of the face, none does not; the mask extended is higher than components."""
    alignments = job.b.with_name("b_alignments.json")
    source = first_frames(job.b)[2].astype(float)
    left, top, right, bottom = json.loads(alignments.read_text())["b_000003.mp4"][0]["detected"]
    shift, highest = {}, {}
    for look in ("-c none", "-c avg-color", "-M components"):
        out = tmp_path / look
        arguments = ["-p", alignments, "-m", job.model, "-o", out, "-R", "2-3", *look.split()]
        done("convert", "-i", job.b, *arguments)
        assert sorted(path.name for path in out.iterdir()) == ["b_000002.png", "b_000003.png"]
        change = np.asarray(Image.open(out / "b_000003.png")) - source
        shift[look] = np.abs(change[top:bottom, left:right].mean((0, 1))).max()
        highest[look] = np.flatnonzero(np.abs(change).max((1, 2)))[0]
    assert shift["-c avg-color"] < 1 < shift["-c none"]
    assert highest["-c avg-color"] < highest["-M components"] - 10


def test_a_kill_leaves_no_half_frame(job: Job, tmp_path: Path) -> None:
    with subprocess.Popen([*COMMAND, *map(str, job.convert(tmp_path))], stdout=subprocess.PIPE) as process:
        while not list(tmp_path.glob(".*.part")):
            assert process.poll() is None
        process.kill()
    for path in tmp_path.glob("[!.]*"):
        with Image.open(path) as image:
            image.load()
    assert len(done(*job.convert(tmp_path))) > 0
    assert len(list(tmp_path.glob("[!.]*"))) == FRAMES + 1


@pytest.mark.parametrize("command", ["extract", "convert"])
def test_sigint_ends_an_unfinished_command_in_one_line(job: Job, tmp_path: Path, command: str) -> None:
    alignments = tmp_path / "new.json"
    started = {
        "extract": ["extract", "-i", CLIP_A, "-o", tmp_path / "out", "-p", alignments],
        "convert": job.convert(tmp_path / "out"),
    }[command]
    with subprocess.Popen(
        [*COMMAND, *map(str, started)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        read_until(process, b"it/s]")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"WARNING  Interrupted" in output
    assert b"Traceback" not in output + errors
    assert not alignments.exists()


# ---- bad input


def test_input_that_is_not_a_whole_video(job: Job, tmp_path: Path) -> None:
    missing, text, empty = tmp_path / "missing.mp4", tmp_path / "text.mp4", tmp_path / "folder"
    text.write_text("not a video")
    empty.mkdir()
    late_index, early_index = tmp_path / "late.mp4", tmp_path / "early.mp4"
    late_index.write_bytes(CLIP_B.read_bytes()[:200_000])
    encode(early_index, first_frames(CLIP_B), movflags="faststart")
    early_index.write_bytes(early_index.read_bytes()[:-5000])
    sound = tmp_path / "sound.wav"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    expected = {
        missing: "does not exist",
        text: "not a video",
        empty: "holds no images",
        late_index: "not a video",
        early_index: "ends before its last frame",
        sound: "no video stream",
    }
    for path, reason in expected.items():
        sentence = refused("extract", "-i", path, "-p", tmp_path / "out.json")
        assert reason in sentence
        assert str(path) in sentence
    assert not (tmp_path / "out.json").exists()


def test_input_without_a_face(tmp_path: Path) -> None:
    video = encode(tmp_path / "blank.mp4", [np.full((240, 320, 3), 128, np.uint8)] * 3)
    alignments = tmp_path / "alignments.json"
    assert "No face was found" in done("extract", "-i", video, "-o", tmp_path / "faces", "-p", alignments)
    assert set(map(len, json.loads(alignments.read_text()).values())) == {0}
    assert not (tmp_path / "blank_alignments.json").exists()


def test_faces_that_cannot_be_trained_on(job: Job, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(job.faces_a.iterdir())[:24]:
        (few / path.name).write_bytes(path.read_bytes())
    train = ["train", "-B", job.faces_b, "-m", tmp_path / "model", "-A"]
    assert "24 faces" in refused(*train, few)
    Image.new("RGB", (64, 64)).save(few / "photo.png")
    assert "photo.png was not made by this engine's extract" in refused(*train, few)
    (few / "photo.png").write_bytes(b"half")
    assert "photo.png cannot be read" in refused(*train, few)
    assert "does not exist" in refused(*train, tmp_path / "missing")
    assert not (tmp_path / "model").exists()


def test_what_convert_needs_and_lacks(job: Job, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "no trained model" in refused(*job.convert(out), "-m", tmp_path)
    assert "does not exist" in refused(*job.convert(out), "-p", tmp_path / "missing.json")
    assert "27 frames" in refused(*job.convert(out, "-R", "20-28"))
    broken = tmp_path / "broken.json"
    for content in ("{", "[]", '{"still001.png": [{"landmarks_2d": [[1, 2]]}]}'):
        broken.write_text(content)
        assert "is not an alignments file" in refused(*job.convert(out), "-p", broken)
    broken.write_text('{"another.png": []}')
    assert f"has no frame of {job.a}" in refused(*job.convert(out), "-p", broken)
