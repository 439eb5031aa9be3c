"""One identity per side: strangers' faces leave what extract makes, and too many of them end it.

The sources are the demo's two persons, apart and in one film, whose frames are A's but for some of B's.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from upstream import needs_source, upstream_engine

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "roles" / "faceswap_run" / "files" / "faces"))

import alignments
import identity

ROOT = Path(__file__).resolve().parents[1]
ALONE = Path(__file__).with_name("extract_alone.py")
DEMO = ROOT / "demo"
FRAMES = 30  # of a film of both
SOME, MANY = {3, 4, 11, 20, 29}, {1, 4, 7, 10, 13, 16, 19, 22}  # frames that are B's: 16.7 and 26.7 per cent
NOT_THE_PERSON = 31

Image8 = Any
__all__ = ["upstream_engine"]


def clip(side: str) -> list[Image8]:
    """Every fourth frame of a demo clip, RGB."""
    with av.open(str(DEMO / f"clip{side.upper()}.mp4")) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][::4]


@pytest.fixture(scope="session")
def persons() -> dict[str, list[Image8]]:
    return {side: clip(side) for side in "ab"}


def film(path: Path, frames: Iterable[Image8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=25, options={"crf": "12"})
        for number, frame in enumerate(frames):
            if not number:
                (stream.height, stream.width), stream.pix_fmt = frame.shape[:2], "yuv420p"
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        out.mux(stream.encode(None))
    return path


def both(persons: dict[str, list[Image8]], of_b: set[int]) -> list[Image8]:
    """Frames of A, but for those of B with these numbers from 1."""
    return [persons["b" if number in of_b else "a"][number] for number in range(1, FRAMES + 1)]


def picture(path: Path, *frames: Image8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(frames, 1)).save(path)
    return path


class Job:
    """A job's folder with a film of both persons, the reference of A, and an engine."""

    def __init__(self, folder: Path, engine: Path | None = None) -> None:
        self.folder = folder
        self.engine = engine or folder / "engine.json"
        if engine is None:
            command = [sys.executable, str(ROOT / "engine" / "faceswap.py")]
            about = {"name": "minifaceswap", "command": command, "python": sys.executable}
            self.engine.write_text(json.dumps(about))
        self.faceswap = engine is not None
        self.ending = ".fsa" if engine else ".json"

    def __call__(self, *own: object, side: str = "a") -> subprocess.CompletedProcess[str]:
        about = json.loads(self.engine.read_text())
        words = ["extract", "-i", "input/a.mp4", "-o", f"faces_{side}", "-p", f"alignments_{side}{self.ending}"]
        words += ["-D", "file", "-A", "file"] if self.faceswap else []
        command = [about["python"], str(ALONE), "--engine", str(self.engine), "--report", f"faces/{side}"]
        environment = {"EXTRACT_COMPARES": "1", "FACESWAP_OCI_STAGE_DIR": str(self.folder)}
        return subprocess.run(
            [*command, *map(str, own), "--", *words],
            cwd=self.folder,
            env={**os.environ, **about.get("environment", {}), **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    def made(self, *own: object) -> dict[str, Any]:
        """The report of a run that must succeed."""
        done = self(*own)
        assert done.returncode == 0, done.stdout + done.stderr
        report: dict[str, Any] = json.loads((self.folder / "faces" / "a" / "report.json").read_text())
        return report

    def refused(self, *own: object, side: str = "a") -> str:
        """The one sentence of a run that must be refused; nothing that could be worked with is left of it."""
        done = self(*own, side=side)
        assert done.returncode == NOT_THE_PERSON, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        assert not [*self.folder.glob("faces_*"), *self.folder.glob("alignments_*"), *self.folder.glob("faces/*")]
        [sentence] = re.findall(r"^\S+ \S+ ERROR\s+(.*)$", done.stdout, re.M)
        return str(sentence)

    def faces(self) -> set[int]:
        """The numbers of the frames whose faces are left."""
        return {int(path.stem.split("_")[1]) for path in (self.folder / "faces_a").iterdir()}

    def aligned(self) -> set[int]:
        """The numbers of the frames with a face in the alignments."""
        _, frames = alignments.load(self.folder / f"alignments_a{self.ending}")
        return {n for n, key in enumerate(sorted(frames), 1) if alignments.faces_of(frames[key])}


@pytest.fixture
def job(tmp_path: Path, persons: dict[str, list[Image8]]) -> Job:
    film(tmp_path / "input" / "a.mp4", both(persons, SOME))
    picture(tmp_path / "consent" / "a.reference.png", persons["a"][len(persons["a"]) // 2])
    return Job(tmp_path)


ALL = set(range(1, FRAMES + 1))


def test_strangers_are_left_out_and_counted(job: Job) -> None:
    report = job.made("--least", 25)
    assert job.faces() == job.aligned() == ALL - SOME
    assert (report["faces"], report["strangers"], report["with_face"]) == (25, 5, 25)
    assert 0.6 < report["likeness"] < 1
    assert report["summary"].endswith("; 5 of strangers left out")
    assert any(said.startswith("5 of 30 faces are not the consented person's") for said in report["warnings"])
    assert (job.folder / "faces" / "a" / "sheet.jpg").exists()
    assert not (job.folder / "faces_a.parts").exists()


def test_the_least_number_of_faces_is_of_the_person_s(job: Job) -> None:
    done = job("--least", 26)
    assert done.returncode == 1 and "Only 25 faces were found" in done.stdout


def test_ranges_compare_nothing_and_the_join_everything(job: Job) -> None:
    whole = job.made()
    kept = job.faces()
    picture_of_a = (job.folder / "consent" / "a.reference.png").read_bytes()
    (job.folder / "consent" / "a.reference.png").unlink()
    for its_range in ("1-15", "16-30"):
        assert job("--range", its_range).returncode == 0
    (job.folder / "consent" / "a.reference.png").write_bytes(picture_of_a)
    assert job.made("--join") == whole
    assert job.faces() == job.aligned() == kept


def test_too_many_strangers_end_it(job: Job, persons: dict[str, list[Image8]]) -> None:
    film(job.folder / "input" / "a.mp4", both(persons, MANY))
    told = job.refused()
    assert told.startswith("8 of the 30 faces in input/a.mp4 (26.7 %) are not the consented person's or cannot be")
    assert "20 % at most may be: cut out the scenes with others" in told
    assert job.made("--most-strangers", 50)["strangers"] == 8


@pytest.mark.parametrize(("share", "ends"), [(16, True), (17, False)])
def test_the_share_is_the_one_that_is_set(job: Job, share: int, ends: bool) -> None:
    assert (job("--most-strangers", share).returncode == NOT_THE_PERSON) == ends  # 16.7 per cent


@pytest.mark.parametrize("share", ["51", "100", "-1", "x", ""])
def test_nobody_may_allow_more_than_half(job: Job, share: str) -> None:
    done = job(f"--most-strangers={share}")
    assert done.returncode == 2 and "give 0 to 50 (per cent)" in done.stderr
    assert not (job.folder / "faces_a").exists()


def test_another_person_s_source_is_refused(job: Job, persons: dict[str, list[Image8]]) -> None:
    picture(job.folder / "consent" / "a.reference.png", persons["b"][0])
    film(job.folder / "input" / "a.mp4", persons["a"])
    assert "32 of the 32 faces in input/a.mp4 (100.0 %)" in job.refused("--most-strangers", 50)


def test_each_side_has_its_own_reference(job: Job, persons: dict[str, list[Image8]]) -> None:
    assert "no reference picture of side b's person" in job.refused(side="b")
    picture(job.folder / "consent" / "b.reference.png", persons["b"][0])
    assert "25 of the 30 faces" in job.refused(side="b")


def test_a_reference_shows_exactly_one_face(job: Job, persons: dict[str, list[Image8]]) -> None:
    """It is told before the engine begins."""
    reference = job.folder / "consent" / "a.reference.png"
    one, other = persons["a"][0], persons["b"][0]
    for frames, said in (
        ((one, other), "a.reference.png shows 2 faces and not exactly one"),
        ((one, one, other), "a.reference.png shows 3 faces"),
        ((np.full_like(one, 120),), "a.reference.png shows no face"),
    ):
        picture(reference, *frames)
        assert said in job.refused()
    reference.write_bytes(b"no picture")
    assert "cannot be read as an image" in job.refused()
    reference.unlink()
    assert "no reference picture of side a's person" in job.refused()
    for ending in ("png", "jpg"):
        picture(reference.with_suffix(f".{ending}"), one)
    assert "2 reference pictures" in job.refused()


def test_an_engine_without_the_detector_compares_nothing(job: Job) -> None:
    about = json.loads(job.engine.read_text())
    job.engine.write_text(json.dumps({**about, "name": "faceswap", "detector": []}))
    with pytest.raises(identity.IdentityError, match="installed without the built-in detector"):
        identity.Person(job.folder / "consent" / "a.reference.png", json.loads(job.engine.read_text()))


# -- the measure -----------------------------------------------------------------------------------------------------


def measured(faces: dict[str, Path], persons: dict[str, list[Image8]], engine: Path) -> None:
    """Compare every face image with every frame as a reference, and hold the threshold against it."""
    about = json.loads(engine.read_text())
    someone = identity.Person(picture(faces["a"].parent / "one.png", persons["a"][0]), about)
    references = {
        side: np.array([someone._known(picture(faces[side].parent / "one.png", frame)) for frame in frames])
        for side, frames in persons.items()
    }
    vectors = {
        side: np.array(
            [vector for path in sorted(folder.glob("*.png")) if (vector := someone.vector(path)) is not None]
        )
        for side, folder in faces.items()
    }
    assert {side: len(found) for side, found in vectors.items()} == {"a": 32, "b": 32}
    for side, other in ("ab", "ba"):
        own, others = references[side] @ vectors[side].T, references[side] @ vectors[other].T
        print(f"{side}: own {own.min():.3f} to {own.max():.3f}, others' {others.min():.3f} to {others.max():.3f}")
        assert (
            own.min() > identity.SAME_PERSON + 0.03
        )  # no face is called a stranger, whatever frame is the reference
        assert others.max() < identity.SAME_PERSON
        assert np.median(others) < identity.NO_LESS + 0.01
        assert (vectors[side] @ vectors[other].T).max() < identity.LOOKS_ALIKE - 0.1
        for likeness in own:
            assert all(identity.of_the_person(vectors[side], likeness))
        for likeness in others:
            assert not any(identity.of_the_person(vectors[other], likeness))


def extracted(
    folder: Path, persons: dict[str, list[Image8]], engine: Path | None = None
) -> tuple[Path, dict[str, Path]]:
    """The faces of both clips, by an engine: the built-in one unless another is given."""
    faces = {}
    for side, frames in persons.items():
        at = folder / side
        film(at / "input" / "a.mp4", frames)
        picture(at / "consent" / "a.reference.png", frames[0])
        job = Job(at, engine)
        assert job.made("--most-strangers", 0)["faces"] == len(frames)
        faces[side] = at / "faces_a"
    return job.engine, faces


def test_the_threshold_tells_the_demo_s_persons_apart(tmp_path: Path, persons: dict[str, list[Image8]]) -> None:
    engine, faces = extracted(tmp_path, persons)
    measured(faces, persons, engine)


def unit(*near: tuple[int, float]) -> Any:
    vector = np.zeros(512, np.float32)
    for place, value in near:
        vector[place] = value
    return vector / np.linalg.norm(vector)


def test_faces_that_look_alike_are_judged_together() -> None:
    """An odd pose stays with its person, and what is like the person in one frame alone with its stranger."""
    person = [unit((0, 1), (1, 0.2 * n)) for n in range(4)]
    stranger = [unit((5, 1), (6, 0.2 * n)) for n in range(4)]
    vectors = np.array([*person, *stranger])
    likeness = np.array([0.8, 0.7, 0.65, 0.5, 0.3, 0.35, 0.4, 0.7], np.float32)
    assert identity.of_the_person(vectors, likeness) == [True] * 4 + [False] * 4
    likeness[3] = identity.NO_LESS - 0.01  # who is turned into another step by step is not taken along
    assert identity.of_the_person(vectors, likeness) == [True] * 3 + [False] * 5
    assert identity.of_the_person(np.zeros((0, 512), np.float32), np.zeros(0, np.float32)) == []


# -- the real Faceswap -----------------------------------------------------------------------------------------------


@needs_source
@pytest.mark.upstream
def test_faceswap_s_faces_are_told_apart(
    upstream_engine: Path, tmp_path: Path, persons: dict[str, list[Image8]]
) -> None:
    """Its convert swaps what is in the folder: the alignments stay whole, by which its faces are numbered."""
    film(tmp_path / "input" / "a.mp4", both(persons, SOME))
    picture(tmp_path / "consent" / "a.reference.png", persons["a"][16])
    job = Job(tmp_path, upstream_engine)
    report = job.made()
    assert job.faces() == ALL - SOME and job.aligned() == ALL
    assert (report["faces"], report["strangers"], report["with_face"]) == (25, 5, 25)
    film(tmp_path / "input" / "a.mp4", both(persons, MANY))
    assert job().returncode == NOT_THE_PERSON


@needs_source
@pytest.mark.upstream
def test_the_threshold_holds_for_faceswap_s_faces(
    upstream_engine: Path, tmp_path: Path, persons: dict[str, list[Image8]]
) -> None:
    engine, faces = extracted(tmp_path, persons, upstream_engine)
    measured(faces, persons, engine)
