"""What the supervisor lets a stage work on: the real gate, before and after commands that are doubles.

tests/consent_attempts.py makes the same attempts, and more, through the whole role on real hosts.
"""

import fcntl
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gated_job import GatedJob
from supervised_job import REAL_PROGRAMS, Json, wait_until
from trust import Trust, consent

sys.path.append(str(REAL_PROGRAMS))

import gate
import records

STAGES = gate.STAGES
OPTIONS = Path(__file__).parents[1] / "collections/ansible_collections/faceswap/ops/plugins/plugin_utils"


@pytest.fixture
def job(tmp_path: Path) -> Iterator[GatedJob]:
    made = GatedJob(tmp_path)
    yield made
    made.ask("stop")


@pytest.fixture(scope="module")
def finished_job(tmp_path_factory: pytest.TempPathFactory) -> GatedJob:
    made = GatedJob(tmp_path_factory.mktemp("finished"))
    made.make(*STAGES)
    return made


@pytest.fixture
def done(finished_job: GatedJob) -> Iterator[GatedJob]:
    """The finished job, put back after the test."""
    kept = finished_job.folder.with_name("kept")
    shutil.copytree(finished_job.folder, kept, symlinks=True)
    trusted = {path.name: path.read_bytes() for path in finished_job.trust.trusted.iterdir()}
    yield finished_job
    finished_job.ask("stop")
    shutil.rmtree(finished_job.folder)
    kept.rename(finished_job.folder)
    for path in finished_job.trust.trusted.iterdir():
        path.unlink()
    for name, content in trusted.items():
        (finished_job.trust.trusted / name).write_bytes(content)


# -- an honest job -------------------------------------------------------------------------------------------


def test_an_honest_job_is_made_and_says_on_whose_consent(done: GatedJob) -> None:
    for stage in STAGES:
        answer = done.start(done.spec(stage))
        assert not answer["changed"], answer
        assert {side: one["id"] for side, one in answer["consents"].items()} == {"a": "test-1", "b": "test-2"}
        made = done.made(stage)
        assert made["final"] and made["consents"]["b"]["signer"] == "signer@test"
    told = done.ask("released")
    digests = {side: consent().digest_of(path) for side, path in done.media.items()}
    assert told["sources"] == digests
    assert told["files"]["swap.mp4"] == consent().digest_of(done.folder / "result" / "swap.mp4")
    assert told["video"] == "swap.mp4" and told["model"]["iterations"] == 3 and told["engine"]["name"] == "double"
    assert told["label"] == {"text": "AI-manipulated"}
    assert str(done.folder.parent) not in json.dumps(told)


def test_weeded_out_faces_train_and_nothing_more_is_asked(done: GatedJob) -> None:
    (done.folder / "faces_b" / "1.png").unlink()
    assert not done.start(done.spec("extract_b"))["changed"]
    assert done.make("train")["iterations"] == 3
    assert done.make("convert")["complete"]


def test_a_renewed_record_leaves_what_was_made(done: GatedJob) -> None:
    done.bring("b", record=done.record(done.media["b"], "b"))
    for stage in ("train", "convert", "release"):
        assert not done.start(done.spec(stage))["changed"]
    assert done.make("convert", settings={"x": {"y": 1}})["consents"]["b"]["id"] not in ("test-1", "test-2")


def test_a_training_that_was_killed_goes_on(job: GatedJob) -> None:
    job.make("extract_a", "extract_b")
    (job.folder / "pause").write_text("0.2")
    job.start(job.spec("train", iterations=1000))
    wait_until(lambda: (job.folder / "model" / "double_state.json").exists())
    state = job.state("train")
    for process in (state["supervisor_pid"], state["engine_pid"]):
        os.kill(process, signal.SIGKILL)
    wait_until(lambda: not job.status("train")["alive"])
    assert not job.made("train")["final"]
    job.refuse("convert", 30, "train", "run it again")
    (job.folder / "pause").unlink()
    assert job.make("train", iterations=9)["iterations"] >= 9
    job.make("convert")


def test_a_training_whose_end_was_not_recorded_is_recorded_by_the_next_run(job: GatedJob) -> None:
    job.make("extract_a", "extract_b", "train")
    path = job.folder / "stages" / "train" / "made.json"
    path.write_text(json.dumps({**job.made("train"), "final": False, "files": {}}))
    assert job.make("train")["reason"] == "what it made was not recorded"
    job.make("convert")


def test_results_set_aside_come_back_with_their_record(job: GatedJob) -> None:
    job.make("extract_a", "extract_b", "train")
    other = job.spec("train", arguments=[*job.spec("train")["arguments"][:-1], "original"])
    assert job.finish(other)["complete"]
    back = job.start(job.spec("train"))
    assert back["reason"].startswith("an earlier result"), back
    job.make("convert")


def test_another_reference_picture_has_faces_compared_anew(done: GatedJob) -> None:
    picture = done.place / "another.png"
    picture.write_text("taken yesterday")
    done.bring("b", record=done.trust.record(done.media["b"], "b", reference=picture))
    assert done.start(done.spec("extract_b"), "--check")["reason"] == "b.reference.png changed"
    assert not done.start(done.spec("extract_a"))["changed"]


# -- records -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_without_records_no_stage_runs(done: GatedJob, stage: str) -> None:
    (done.folder / "consent" / "b.yml").unlink()
    text = done.refuse(stage, 20, "side B", "consent/b.yml", settings=other_settings(stage), **gone(done, stage))
    assert "faceswap-oci consent new" in text
    assert not any(done.status(one)["alive"] for one in STAGES)


def gone(job: GatedJob, stage: str) -> Json:
    """Have a stage run again."""
    if stage != "train":
        for output in job.spec(stage)["outputs"]:
            path = job.folder / output
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return {}
    return {"iterations": 5}


def other_settings(stage: str) -> Json:
    return {}


def replaced(job: GatedJob, **changes: Any) -> None:
    job.bring("b", record=job.record(job.media["b"], "b", **changes))


def revoke(job: GatedJob) -> None:
    job.trust.revoke(job.records["b"])


def altered(job: GatedJob) -> None:
    path = job.folder / "consent" / "b.yml"
    path.write_text(path.read_text().replace("2096", "2097"))


def another_clip(job: GatedJob) -> None:
    job.bring("b", source=job.source("c", "cnna's video"))


def more_pictures(job: GatedJob) -> None:
    (job.folder / "consent" / "b.reference.jpg").write_text("x")


def link(job: GatedJob, path: str) -> None:
    kept = job.folder.with_name("elsewhere")
    (job.folder / path).rename(kept)
    (job.folder / path).symlink_to(kept)


AT_EXTRACT: dict[str, tuple[int, Callable[[GatedJob], Any], str]] = {
    "unsigned": (20, lambda job: (job.folder / "consent/b.yml.sig").unlink(), "b.yml.sig"),
    "no picture": (20, lambda job: (job.folder / "consent/b.reference.png").unlink(), "picture"),
    "nobody is trusted": (20, lambda job: (job.trust.trusted / "allowed_signers").unlink(), "nobody is trusted"),
    "expired": (22, lambda job: replaced(job, valid=("2020-01-01", "2021-01-01")), "2021-01-01"),
    "not yet": (23, lambda job: replaced(job, valid=("2090-01-01", "2091-01-01")), "2090-01-01"),
    "revoked": (24, revoke, "test-2"),
    "altered": (25, altered, "side B"),
    "a stranger": (26, lambda job: replaced(job, key=job.trust.stranger), "side B"),
    "another clip": (27, another_clip, "test-2"),
    "another picture": (27, lambda job: (job.folder / "consent/b.reference.png").write_text("x"), "picture"),
    "the head's record": (28, lambda job: job.bring("b", record=job.record(job.media["b"], "a")), "side B"),
    "one person": (28, lambda job: replaced(job, identity="test person  1"), "one person"),
    "a second picture": (30, more_pictures, "b.reference.jpg"),
    "a linked record": (30, lambda job: link(job, "consent/b.yml"), "consent/b.yml"),
    "a linked folder of records": (30, lambda job: link(job, "consent"), "consent"),
    "a linked clip": (30, lambda job: link(job, "input/b.mp4"), "input/b.mp4"),
    "a linked folder of clips": (30, lambda job: link(job, "input"), "input"),
    "a linked output": (30, lambda job: (job.folder / "faces_b").symlink_to("/tmp"), "faces_b"),
}  # fmt: skip


@pytest.mark.parametrize("what", AT_EXTRACT)
@pytest.mark.parametrize("verb", ["start", "run"])
def test_what_a_record_or_clip_lacks_stops_extract(job: GatedJob, what: str, verb: str) -> None:
    code, change, words = AT_EXTRACT[what]
    if verb == "start":
        change(job)
        job.refuse("extract_b", code, words)
    else:
        # As if all had been well when it was started, and changed before the command ran.
        stage = job.folder / "stages" / "extract_b"
        stage.mkdir(parents=True)
        spec = job.spec("extract_b")
        (stage / "spec.json").write_text(json.dumps(spec))
        (stage / "state.json").write_text(json.dumps({"seconds": 0, "fingerprint": {"digest": ""}}))
        change(job)
        done = job.by_hand(str(job.program), "run", str(job.folder), "extract_b")
        assert done.returncode == code and words in done.stderr, done
        assert job.status("extract_b")["code"] == code
    assert (job.folder / "faces_b").is_symlink() or not (job.folder / "faces_b").exists()


def test_a_revocation_that_comes_with_an_order_is_kept_and_an_older_list_changes_nothing(job: GatedJob) -> None:
    before = job.trust.record(job.media["a"], "a", reference=job.trust.reference(job.records["a"]))
    job.trust.revoke(before)
    older = in_an_order(job)
    job.trust.revoke(job.records["b"])
    newer = in_an_order(job)
    for name in ("revoked.yml", "revoked.yml.sig"):
        (job.trust.trusted / name).unlink()
    spec = job.spec("extract_b")
    answer = job.ask("start", "extract_b", spec={"spec": spec, "revocations": newer})
    assert answer["code"] == 24
    for revocations in (older, None):
        answer = job.ask("start", "extract_b", spec={"spec": spec, "revocations": revocations})
        assert answer["code"] == 24
    bad = {**newer, "text": newer["text"].replace("serial: 2", "serial: 9")}
    assert job.ask("start", "extract_b", spec={"spec": spec, "revocations": bad})["code"] == 29


def in_an_order(job: GatedJob) -> dict[str, str]:
    text, sig = (job.trust.trusted / name for name in ("revoked.yml", "revoked.yml.sig"))
    return {"text": text.read_text(), "sig": sig.read_text()}


@pytest.mark.parametrize("own", [True, False], ids=["the trust folder is ours", "it is root's alone"])
def test_a_list_that_lacks_a_record_of_the_kept_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    trust, module = Trust(tmp_path / "trust"), vars(gate)["consent"]  # its own, not the tests'
    monkeypatch.setattr(module, "SYSTEM_TRUST", trust.trusted)
    if not own:

        def refuse(*_: Any) -> None:
            raise PermissionError

        monkeypatch.setattr(module, "keep_revocations", refuse)

    def take(serial: int, *ids: str) -> None:
        path = tmp_path / "revoked.yml"
        day = module.datetime.date(2026, 11, 23)
        path.write_text(module.dump_revocations(module.Revocations(serial, dict.fromkeys(ids, day))))
        trust.sign(path, trust.signer, module.REVOCATIONS_NAMESPACE)
        gate.take_revocations(tmp_path / "job", path.read_text(), path.with_name("revoked.yml.sig").read_text())

    take(2, "anna", "berta")
    for serial in (1, 2, 3):
        with pytest.raises(gate.GateError, match="have parted") as raised:
            take(serial, "anna", "clara")
        assert raised.value.code == 29
    assert set(gate.revocations_of(tmp_path / "job").ids) == {"anna", "berta"}
    take(3, "anna", "berta", "clara")
    assert gate.revocations_of(tmp_path / "job").serial == 3


def test_check_mode_says_what_would_be_refused_and_waits_for_records(job: GatedJob) -> None:
    assert job.start(job.spec("extract_b"), "--check")["changed"]
    shutil.rmtree(job.folder / "consent")
    answer = job.start(job.spec("extract_b"), "--check")
    assert answer["changed"] and answer["reason"].startswith("for now, ")
    replaced(job, key=job.trust.stranger)
    job.bring("a")
    assert job.start(job.spec("extract_b"), "--check")["code"] == 26


# -- what stages made ----------------------------------------------------------------------------------------


def more_faces(job: GatedJob) -> None:
    (job.folder / "faces_b" / "9.png").write_text("somebody else")


def other_face(job: GatedJob) -> None:
    (job.folder / "faces_b" / "0.png").write_text("somebody else")


def link_faces(job: GatedJob) -> None:
    (job.folder / "faces_b" / "9.png").symlink_to("0.png")


def written(path: str, text: str = "from elsewhere") -> Callable[[GatedJob], Any]:
    return lambda job: (job.folder / path).write_text(text)


def without(path: str) -> Callable[[GatedJob], Any]:
    return lambda job: (job.folder / path).unlink()


def other_source(job: GatedJob) -> None:
    """A consented source, but not the one of which the rest was made."""
    other = job.source("a2", "another video of a")
    items = job.trust.record(job.media["a"], "a", more=[other], reference=job.trust.reference(job.records["a"]))
    job.bring("a", source=other, record=items)


def uncovered(job: GatedJob) -> None:
    """A renewed record that is not for the source of which all was made."""
    other = job.source("b2", "another video of b")
    job.bring("b", source=other, record=job.record(other, "b"))


LATER: dict[str, tuple[str, int, Callable[[GatedJob], Any], str]] = {
    "one more face": ("train", 30, more_faces, "9.png"),
    "another face": ("train", 30, other_face, "0.png"),
    "a linked face": ("train", 30, link_faces, "9.png"),
    "faces that nobody extracted": ("train", 30, without("stages/extract_b/made.json"), "extract_b"),
    "faces of a source without consent": ("train", 27, uncovered, "test-"),
    "a model from elsewhere": ("convert", 30, written("model/weights.bin"), "weights.bin"),
    "a file more in the model": ("convert", 30, written("model/more.bin"), "more.bin"),
    "a file of the model gone": ("convert", 30, without("model/weights.bin"), "weights.bin"),
    "a model that nobody trained": ("convert", 30, without("stages/train/made.json"), "train"),
    "other alignments": ("convert", 30, written("alignments_a.json"), "alignments_a.json"),
    "a model of a source without consent": ("convert", 27, uncovered, "test-"),
    "another clip to convert": ("convert", 27, written("input/a.mp4"), "test-1"),
    "another consented clip to convert": ("convert", 30, other_source, "extract"),
    "another frame": ("release", 30, written("quarantine/a_1.png"), "a_1.png"),
    "a frame more": ("release", 30, written("quarantine/a_2.png"), "a_2.png"),
    "frames that nobody converted": ("release", 30, without("stages/convert/made.json"), "convert"),
    "a swap of a source without consent": ("release", 27, uncovered, "test-"),
}


@pytest.mark.parametrize("what", LATER)
def test_only_what_the_stage_before_made_goes_in(done: GatedJob, what: str) -> None:
    stage, code, change, words = LATER[what]
    change(done)
    done.refuse(stage, code, words, **gone(done, stage))


def test_a_model_without_a_record_is_set_aside_and_does_not_go_on(done: GatedJob) -> None:
    """As one of an earlier version of these programs, or from elsewhere."""
    without("stages/train/made.json")(done)
    spec = done.spec("train", iterations=5)
    with pytest.raises(gate.GateError, match="was not trained here"):
        gate._admit_train(admission(done), begun_anew=False)
    assert done.start(spec, "--check")["changed"] and (done.folder / "model").exists()
    assert done.finish(spec)["complete"]
    (kept,) = (done.folder / "superseded").glob("train-broken-*/model/weights.bin")
    assert (kept.read_text(), (done.folder / "model/weights.bin").read_text()) == ("xxx", "xxxxx")
    done.make("convert")


def admission(job: GatedJob) -> Any:
    """One that takes the job's records for well."""
    parts: Any = {side: SimpleNamespace(covers=lambda _: True) for side in "ab"}
    return gate.Admission(job.folder, "train", parts, {}, {}, gate.Look(job.folder))


def foreign_version(job: GatedJob) -> None:
    """A newer version of the model, which takes its place where that is damaged."""
    shutil.copytree(job.folder / "model", job.folder / "stages/train/checkpoints/9")


def foreign_backup(job: GatedJob) -> None:
    (job.folder / "model/weights.bin.bk").write_text("somebody else")


def foreign_restored(job: GatedJob) -> None:
    shutil.copytree(job.folder / "model", job.folder / "model.restored")
    (job.folder / "model.restored/weights.bin").write_text("somebody else")


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("change", [foreign_version, foreign_backup, foreign_restored])
def test_no_model_from_elsewhere_takes_the_place_of_a_damaged_one(
    done: GatedJob, change: Callable[[GatedJob], Any], damaged: bool
) -> None:
    change(done)
    if damaged:
        (done.folder / "model/double_state.json").write_text("{")
    done.refuse("train", 30, "made no such file", iterations=5)


def test_versions_that_the_training_made_are_known(job: GatedJob) -> None:
    job.make("extract_a", "extract_b")
    job.make("train", training={"checkpoints": 2})
    assert any("checkpoints/3/double_state.json" in name for name in job.made("train")["files"])
    (job.folder / "model/double_state.json").write_text("{")
    assert job.make("train", training={"checkpoints": 2}, iterations=4)["iterations"] == 4
    (version,) = (job.folder / "stages/train/checkpoints").glob("4/double_state.json")
    version.write_text('{"iterations": 4 }')
    job.refuse("train", 30, "checkpoints/4", training={"checkpoints": 2}, iterations=5)


def test_a_job_goes_on_with_another_source_of_its_own_record(done: GatedJob) -> None:
    other = done.source("b3", "quite another video of b")
    done.bring("b", source=other, record=done.record(other, "b"))
    done.make("extract_b")
    done.make("train", iterations=5)  # its model is another
    done.make("convert", "release")
    assert done.ask("released")["sources"]["b"] == consent().digest_of(other)


def half_a_result(job: GatedJob) -> Path:
    path = job.folder / "quarantine.parts/key/frames/a_1.png"
    path.parent.mkdir(parents=True)
    path.write_text("somebody else")
    return path


def test_frames_that_the_stage_itself_did_not_leave_half_made_are_not_taken_up(done: GatedJob) -> None:
    path = half_a_result(done)
    shutil.rmtree(done.folder / "quarantine")
    done.make("convert")
    assert not path.exists()
    half_a_result(done)
    state = done.folder / "stages/convert/state.json"
    state.write_text(json.dumps({**done.state("convert"), "finished": None, "complete": False}))
    done.make("convert")
    assert path.exists()  # it was cut off


FORGED = ("jobs/x/input/a", "jobs/x/input/a/jobs/y", "jobs/job/superseded/y", "input/jobs/y", "jobs/../jobs/y")


@pytest.mark.parametrize("place", FORGED)
def test_a_whole_job_that_came_as_a_source_is_none(done: GatedJob, place: str) -> None:
    forged = done.place / place
    shutil.copytree(done.folder, forged)
    try:
        see_that_it_is_none(done, forged)
        link_to = done.folder.with_name("link")
        link_to.symlink_to(forged)
        see_that_it_is_none(done, link_to)
        link_to.unlink()
    finally:
        shutil.rmtree(forged)


def see_that_it_is_none(job: GatedJob, forged: Path) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: gate.released(forged),
        lambda: gate.admit(forged, "convert", job.spec("convert")),
        lambda: gate.shape_of(forged, "convert", job.spec("convert")),
        lambda: gate.admit_by_hand("extract", forged / "input/b.mp4"),
    ]
    for call in calls:
        with pytest.raises(gate.GateError) as raised:
            call()
        assert raised.value.code == 30 and "no job" in str(raised.value), call


def test_only_a_job_of_the_role_is_signed(done: GatedJob) -> None:
    elsewhere = done.place / "mine" / "job"
    shutil.copytree(done.folder, elsewhere)
    with pytest.raises(gate.GateError, match="no job of the role"):
        gate.released(elsewhere)
    shutil.rmtree(elsewhere.parent)


def test_a_model_that_was_changed_after_its_end_does_not_go_on(done: GatedJob) -> None:
    written("model/weights.bin")(done)
    done.refuse("train", 30, "weights.bin", iterations=5)
    done.refuse("train", 30, "weights.bin")  # though it has all its iterations


@pytest.mark.parametrize(
    "change",
    [written("result/swap.mp4"), written("result/more.mp4"), without("result/label.json"), uncovered, revoke],
)
def test_only_what_release_made_is_signed(done: GatedJob, change: Callable[[GatedJob], Any]) -> None:
    change(done)
    answer = done.ask("released")
    assert answer["code"] in (24, 27, 30)


# -- words ---------------------------------------------------------------------------------------------------


def words(stage: str, *more: str) -> Callable[[GatedJob], Json]:
    """More words among the engine's."""
    return lambda job: {"arguments": [*job.spec(stage)["arguments"], *more]}


def own(stage: str, *more: str) -> Callable[[GatedJob], Json]:
    """More words among those that change only how it is done."""
    return lambda job: {"neutral_arguments": [*job.spec(stage)["neutral_arguments"], *more]}


def instead(stage: str, old: str, new: str) -> Callable[[GatedJob], Json]:
    return lambda job: {"arguments": [new if word == old else word for word in job.spec(stage)["arguments"]]}


BAD_WORDS: dict[str, tuple[str, Callable[[GatedJob], Json]]] = {
    **{
        f"extract {' '.join(more)}": ("extract_b", words("extract_b", *more))
        for more in (
            ["-i", "input/a.mp4"], ["-i", "evil"], ["-ievil"], ["-iinput/evil"], ["--input-dir", "evil"],
            ["--input-dir=evil"], ["--inp=evil"], ["--i", "evil"], ["--in", "evil"], ["-b"], ["-zievil"],
            ["-z", "/evil"], ["-o", "x"], ["--out", "x"], ["-p", "x"], ["--ali", "x"], ["--alignments=x"],
            ["-F", "log"], ["-C", "ini"], ["-n", "face.png"], ["--nfilter=x"], ["-f", "x"], ["--filter", "x"],
            ["--"], ["--", "--engine", "/e.json"], ["@words"], ["../x"], ["~"], ["~root"], [".."], ["."],
            ["consent"], ["input"], ["--mask=input"], ["-"], ["--detector=../x"], ["x/y"],
        )
    },
    **{
        f"train {' '.join(more)}": ("train", words("train", *more))
        for more in (["-A", "x"], ["--input-B=x"], ["-Bx"], ["-l", "w.h5"], ["--load", "w"], ["-m", "x"],
                     ["-x", "faces_b"], ["-y", "x"], ["--timelapse-o", "x"], ["-z", "x"], ["model"])
    },
    **{
        f"convert {' '.join(more)}": ("convert", words("convert", *more))
        for more in (["-i", "x"], ["-r", "v.mp4"], ["--ref=v"], ["-m", "x"], ["-a", "faces_b"], ["--input-a", "x"],
                     ["--output-d=/tmp/loot"], ["-p", "x"], ["-oloot"], ["-P/x"], ["-n", "x"])
    },
    "another source": ("extract_b", instead("extract_b", "input/b.mp4", "input/a.mp4")),
    "a source elsewhere": ("extract_b", instead("extract_b", "input/b.mp4", "input/../../evil.mp4")),
    "a source in a folder": ("extract_b", instead("extract_b", "input/b.mp4", "input/b.d/evil.mp4")),
    "another output": ("extract_b", instead("extract_b", "faces_b", "faces_a")),
    "other alignments": ("extract_b", instead("extract_b", "alignments_b.json", "alignments_a.json")),
    "another engine for the script": ("extract_b", lambda job: {"engine_file": "/another/engine.json"}),
    "a script elsewhere": ("extract_b", lambda job: {"script": "../../evil.py"}),
    "a script by its path": ("extract_b", lambda job: {"script": "/tmp/evil.py"}),
    "another of our scripts": ("extract_b", lambda job: {"script": "release/release.py"}),
    "no script": ("extract_b", lambda job: {"script": None}),
    "a script to train": ("train", lambda job: {"script": "faces/extract.py"}),
    "another report": ("extract_b", lambda job: {"neutral_arguments": ["--", "--report", "/tmp/x"]}),
    "another engine in the neutral words": ("extract_b", own("extract_b", "--engine", "/e.json")),
    "a range alone": ("extract_b", own("extract_b", "--range", "1-2")),
    "a neutral word to the engine": ("extract_b", lambda job: {"neutral_arguments": ["-i", "evil"]}),
    "a second list of engine's words": ("extract_b", own("extract_b", "--", "extract", "-i", "x")),
    "a path in the neutral words of training": ("train", own("train", "-A", "x")),
    "other inputs": ("train", lambda job: {"inputs": ["faces_a", "input"]}),
    "fewer inputs": ("train", lambda job: {"inputs": []}),
    "inputs of the host": ("convert", lambda job: {"inputs": ["/etc/passwd"]}),
    "other outputs": ("train", lambda job: {"outputs": ["consent"]}),
    "editable frames": ("convert", lambda job: {"editable": ["quarantine"]}),
    "another model": ("train", lambda job: {"model": "../model"}),
    "no number of iterations": ("train", lambda job: {"iterations": "5 -A x"}),
    "no size of a batch": ("train", lambda job: {"training": {"batch_size": "-A"}}),
    "words that are no list": ("train", lambda job: {"arguments": "train -A faces_a"}),
    "words that are no text": ("train", lambda job: {"arguments": [1, 2]}),
    "a key of one's own": ("train", lambda job: {"environment": {"PYTHONPATH": "/tmp"}}),
    "a setting with a path": ("train", lambda job: {"settings": {"global": {"x": "/etc/passwd"}}}),
    "a setting with a section": ("train", lambda job: {"neutral_settings": {"global": {"x": "1\n[other]"}}}),
    "an iteration to convert": ("convert", lambda job: {"iterations": 5, "model": "model"}),
    "another stage's name in the order": ("train", lambda job: {"stage": "convert"}),
    "frames elsewhere": ("release", instead("release", "quarantine", "input")),
    "a result elsewhere": ("release", instead("release", "result", "../result")),
    "another job's folder": ("release", instead("release", ".", "..")),
    "the source twice": ("release", words("release", "--source", "input/b.mp4")),
    "the source abbreviated": ("release", words("release", "--sour", "input/b.mp4")),
    "a name with a path": ("release", instead("release", "swap", "../swap")),
    "an attached value": ("release", words("release", "--frames=input", "x")),
    "no engine's path": ("train", lambda job: {"engine_file": "engine.json"}),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_WORDS)
def test_words_that_the_role_does_not_give_are_refused(finished_job: GatedJob, what: str) -> None:
    stage, change = BAD_WORDS[what]
    spec = {**finished_job.spec(stage), **change(finished_job)}
    with pytest.raises(gate.GateError) as raised:
        gate.shape_of(finished_job.folder, stage, spec)
    assert raised.value.code == 30 and "\n" not in str(raised.value)


def test_the_supervisor_refuses_them_before_it_looks_at_anything(job: GatedJob) -> None:
    job.refuse("extract_b", 30, "evil", arguments=["-i", "evil"], inputs=["/dev/zero"])
    for stage in ("anything", "../../x", "extract", "extract_c"):
        answer = job.ask("start", stage, spec={**job.spec("extract_b"), "stage": stage})
        assert answer["code"] == 30 and answer["error"].startswith("There is no stage"), answer
    assert not (job.folder / "stages").exists() and not (job.folder.parent / "x").exists()


GOOD_WORDS = {
    "extract_a": ["-D", "s3fd", "-A", "fan", "-M", "bisenet-fp_face", "vgg-obstructed", "-O", "hist", "-r", "90,270",
                  "-N", "2", "-m", "10", "--re-feed", "2", "--min-scale=5", "-l", "0.4", "-a", "-X", "0", "-z512"],
    "train": ["--no-flip", "-b", "16", "-M", "-W", "--warmup=100", "-d", "-f"],
    "convert": ["-O", "200", "-R", "1-10", "20-30", "-S", "-2.5", "--face-scale=-1.5", "-j", "4", "-P", "-s"],
}  # fmt: skip


@pytest.mark.parametrize("stage", GOOD_WORDS)
def test_options_that_name_no_file_pass(finished_job: GatedJob, stage: str) -> None:
    spec = finished_job.spec(stage)
    spec["arguments"] = [*spec["arguments"], *GOOD_WORDS[stage]]
    gate.shape_of(finished_job.folder, stage, spec)


def test_what_faceswap_takes_a_path_for_is_the_roles_alone() -> None:
    """Held against what the engines say of themselves; an option that is new must be looked at by a person."""
    told = json.loads((OPTIONS / "faceswap_options.json").read_text())["engines"]
    words_not_paths = {
        "extract": {"-L", "-D", "-A", "-M", "-I", "-r", "-O"},
        "train": {"-L", "-t"},
        "convert": {"-L", "-c", "-M", "-w", "-R"},
    }
    for engine in told.values():
        for command, options in engine.items():
            for option in options:
                paths = set(option["names"]) & set(gate.PATH_OPTIONS[command])
                if option["takes"] == "text" and not set(option["names"]) & words_not_paths[command]:
                    assert paths == set(option["names"]), f"{command} {option['names']}"
                elif "--batch-mode" not in option["names"]:
                    assert not paths
                # What is no path can be said in full though it begins as one that is.
                for name in option["names"]:
                    begins = [path for path in gate.PATH_OPTIONS[command] if path.startswith(name)]
                    assert paths or name[:2] != "--" or not begins


@pytest.mark.parametrize("engine", ["builtin", "upstream"])
def test_what_the_role_gives_passes(tmp_path: Path, engine: str) -> None:
    """The role's own tasks and variables, rendered by Ansible."""
    for stage, spec in role_specs(engine).items():
        gate.shape_of(tmp_path, stage, spec)


def role_specs(engine: str) -> dict[str, Json]:
    import yaml
    from ansible.parsing.dataloader import DataLoader
    from ansible.template import Templar, trust_as_template

    role, loader = REAL_PROGRAMS.parent, DataLoader()
    values = loader.load_from_file(str(role / "defaults" / "main.yml"), trusted_as_template=True)
    values |= loader.load_from_file(str(role / "vars" / "main.yml"), trusted_as_template=True)
    values |= {
        "faceswap_run_engine": engine,
        "faceswap_run_source_a": "/videos/Anna 1.MP4",
        "faceswap_run_source_b": "/videos/berta",
        "faceswap_run_frames": "1-20",
        "faceswap_run_output_scale": 50,
        "faceswap_run_detector": "s3fd",
        "faceswap_run_rotate_images": "90,270",
    }
    made: dict[str, Json] = {}
    for name in ("extract", "train", "convert", "release"):
        for task in yaml.safe_load((role / "tasks" / f"{name}.yml").read_text()):
            given = task.get("faceswap.ops.stage")
            for side in "ab" if given and name == "extract" else "-" if given else "":
                mine = {**values, "__faceswap_run_side": side, "ansible_facts": {}, "item": side}
                templar = Templar(loader=loader, variables=mine)

                def render(value: Any, templar: Any = templar) -> Any:
                    if isinstance(value, str):
                        return templar.template(trust_as_template(value))
                    if isinstance(value, list):
                        return [render(one) for one in value]
                    return {key: render(one) for key, one in value.items()} if isinstance(value, dict) else value

                settings: Json = {
                    key: {} for key in ("settings", "neutral_settings")
                }  # by a filter of the collection
                spec = render({key: value for key, value in given.items() if key not in settings})
                for key in ("arguments", "neutral_arguments", "inputs", "outputs", "editable"):
                    spec[key] = [str(word) for word in spec.get(key, [])]
                for key in ("supervisor", "job_dir", "patience_s", "follow"):
                    spec.pop(key, None)
                if name == "train":
                    spec["iterations"] = int(spec["iterations"])
                made[f"extract_{side}" if name == "extract" else name] = {**spec, **settings}
    return made


# -- the engine ----------------------------------------------------------------------------------------------


def test_an_engine_that_others_could_have_put_there_is_refused(job: GatedJob) -> None:
    for place in (job.engine, job.engine.parent, job.engine.parent / "engine" / "double.py"):
        before = stat.S_IMODE(place.stat().st_mode)
        place.chmod(before | 0o002)
        job.refuse("extract_b", 30, str(place) if place.is_file() else str(job.engine))
        place.chmod(before)
    if os.geteuid() == 0:
        os.chown(job.engine, 1234, 1234)
        job.refuse("extract_b", 30, "others than root")


def engine_at(job: GatedJob, place: Path) -> Path:
    """A copy of the engine's description elsewhere."""
    place.mkdir(parents=True)
    return Path(shutil.copy(job.engine, place / "engine.json"))


def refused_engine(job: GatedJob, path: Path, *words: str) -> None:
    with pytest.raises(gate.GateError) as told:
        gate.see_engine(job.folder, path)
    assert told.value.code == 30 and all(word in str(told.value) for word in words), told.value


@pytest.mark.parametrize("link", [False, True])
def test_an_engine_is_refused_where_others_may_write_to_a_folder_above_it(job: GatedJob, link: bool) -> None:
    path = engine_at(job, job.place / "open" / "a" / "b")
    if link:  # to a link there, which leads to an engine that nobody can touch
        (path.parent / "link.json").symlink_to(job.engine)
        path = job.place / "link.json"
        path.symlink_to("open/a/b/link.json")
    gate.see_engine(job.folder, path)
    (job.place / "open").chmod(0o757)
    refused_engine(job, path, f"write to {job.place / 'open'};")
    (job.place / "open").chmod(0o1757)  # as /tmp is: there each has his own
    gate.see_engine(job.folder, path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("what", ["b/engine.json", "b", "."])
def test_an_engine_of_the_jobs_user_is_refused_where_the_programs_are_roots(
    job: GatedJob, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Sources are brought as files of that user."""
    path = engine_at(job, job.place / "other" / "b")
    monkeypatch.setattr(os, "geteuid", lambda: 1234)  # who asks the gate
    gate.see_engine(job.folder, path)
    os.chown(job.place / "other" / what, 1234, 1234)
    refused_engine(job, path, "others than root")


def test_an_engine_that_came_with_another_job_is_refused(job: GatedJob) -> None:
    """Without units sources are the login's, as the programs are."""
    for name in ("other/jobs/j/input/b", "other/jobs/j/Input/b/deeper"):
        path = engine_at(job, job.place / name)
        refused_engine(job, path, "a folder for jobs or their sources")
        link_to = job.place / f"{path.parent.name}.json"
        link_to.symlink_to(path)
        refused_engine(job, link_to, "a folder for jobs or their sources")
    about = json.loads(job.engine.read_text())
    job.engine.write_text(json.dumps({**about, "command": [sys.executable, str(path.parent / "evil.py")]}))
    refused_engine(job, job.engine, "a folder for jobs or their sources")


def test_an_engine_that_came_with_a_job_is_refused(job: GatedJob) -> None:
    def engine(path: Path) -> Json:
        words = [str(path) if word == str(job.engine) else word for word in job.spec("extract_b")["arguments"]]
        return {"engine_file": str(path), "arguments": words}

    inside = job.folder / "input" / "a.json"
    shutil.copy(job.engine, inside)
    job.refuse("extract_b", 30, "a folder for jobs", **engine(inside))
    link_to = job.place / "link.json"
    link_to.symlink_to(inside)
    job.refuse("extract_b", 30, "a folder for jobs", **engine(link_to))
    about = json.loads(job.engine.read_text())
    job.engine.write_text(json.dumps({**about, "command": ["python3", "-c", "1"]}))
    job.refuse("extract_b", 30, "no whole path")


# -- while it runs -------------------------------------------------------------------------------------------


def swap_file(job: GatedJob) -> None:
    path = job.folder / "input" / "b.mp4"
    path.rename(job.place / "kept")
    path.write_text("somebody else")
    (job.place / "kept").rename(path)


def swap_folder(job: GatedJob) -> None:
    folder = job.folder / "input"
    kept = folder.rename(job.place / "kept")
    shutil.copytree(kept, folder)
    (folder / "b.mp4").write_text("somebody else")
    shutil.rmtree(folder)
    kept.rename(folder)


def write_back(job: GatedJob) -> None:
    path = job.folder / "input" / "b.mp4"
    before, text = path.stat(), path.read_text()
    path.write_text("b" * len(text))
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def swap_picture(job: GatedJob) -> None:
    path = job.folder / "consent" / "b.reference.png"
    text = path.read_text()
    path.write_text("somebody else")
    path.write_text(text)


@pytest.mark.parametrize("swap", [swap_file, swap_folder, write_back, swap_picture])
def test_what_is_swapped_while_a_stage_runs_and_swapped_back_is_seen(
    job: GatedJob, swap: Callable[[GatedJob], None]
) -> None:
    (job.folder / "hold").touch()
    assert job.start(job.spec("extract_b"))["running"]
    wait_until((job.folder / "begun").exists)  # it has asked the gate by itself, too
    swap(job)
    (job.folder / "hold").unlink()
    wait_until(lambda: not job.status("extract_b")["alive"])
    end = job.status("extract_b")
    assert end["code"] == 30 and not end["complete"], end
    assert "changed while stage extract_b worked" in end["message"]
    for path in ("faces_b", "alignments_b.json", "faces/b", "stages/extract_b/made.json"):
        assert not (job.folder / path).exists()
    assert job.make("extract_b")["complete"]


def test_a_model_trained_on_swapped_faces_is_set_aside(job: GatedJob) -> None:
    job.make("extract_a", "extract_b")
    (job.folder / "pause").write_text("0.1")
    job.start(job.spec("train", iterations=60))
    wait_until(lambda: (job.folder / "model" / "double_state.json").exists())
    (job.folder / "faces_b" / "7.png").write_text("somebody else")
    (job.folder / "faces_b" / "7.png").unlink()
    wait_until(lambda: not job.status("train")["alive"])
    assert job.status("train")["code"] == 30
    assert not (job.folder / "model").exists() and not (job.folder / "stages/train/made.json").exists()
    assert list((job.folder / "superseded").glob("train-broken-*/model/weights.bin"))


def test_faces_that_are_weeded_out_while_they_train_spoil_nothing(job: GatedJob) -> None:
    job.make("extract_a", "extract_b")
    (job.folder / "pause").write_text("0.1")
    job.start(job.spec("train", iterations=60))
    wait_until(lambda: (job.folder / "model" / "double_state.json").exists())
    (job.folder / "faces_b" / "1.png").unlink()
    wait_until(lambda: not job.status("train")["alive"])
    assert job.status("train")["complete"]
    job.make("convert")


def come_and_go(job: GatedJob) -> None:
    more_faces(job)
    time.sleep(2.5)  # it looks once a second
    (job.folder / "faces_b" / "9.png").unlink()


@pytest.mark.parametrize("change", [more_faces, other_face, come_and_go])
def test_other_faces_do_though_one_is_weeded_out(job: GatedJob, change: Callable[[GatedJob], Any]) -> None:
    job.make("extract_a", "extract_b")
    (job.folder / "pause").write_text("0.1")
    job.start(job.spec("train", iterations=120))
    wait_until(lambda: (job.folder / "model" / "double_state.json").exists())
    (job.folder / "faces_b" / "1.png").unlink()
    change(job)
    wait_until(lambda: not job.status("train")["alive"])
    assert job.status("train")["code"] == 30


def test_a_record_that_is_renewed_while_a_stage_runs_disturbs_nothing(job: GatedJob) -> None:
    job.make("extract_a", "extract_b")
    (job.folder / "pause").write_text("0.1")
    job.start(job.spec("train", iterations=10))
    job.bring("b", record=job.record(job.media["b"], "b"))
    wait_until(lambda: not job.status("train")["alive"])
    assert job.status("train")["complete"]


# -- by hand -------------------------------------------------------------------------------------------------


def test_a_script_run_by_hand_asks_for_consent_too(job: GatedJob) -> None:
    words = [str(job.programs / "faces" / "extract.py"), *job.spec("extract_b")["arguments"]]
    assert job.by_hand(*words).returncode == 0
    shutil.rmtree(job.folder / "faces_b")
    shutil.rmtree(job.folder / "faces")
    (job.folder / "input" / "b.mp4").write_text("somebody else")
    said = job.by_hand(*words)
    assert said.returncode != 0 and "test-2" in said.stderr
    assert not (job.folder / "faces_b").exists()


def test_what_is_kept_of_hashes_is_not_believed_by_hand(job: GatedJob) -> None:
    path = job.folder / "input" / "b.mp4"
    (job.folder / "stages/extract_b").mkdir(parents=True)
    text = path.read_text()
    path.write_text(text.swapcase())
    stat = path.stat()
    mark = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    digest = consent().digest_of(job.media["b"])
    (job.folder / "stages/extract_b/hashes.json").write_text(json.dumps({str(path): [mark, digest]}))
    done = job.by_hand(str(job.programs / "faces/extract.py"), *job.spec("extract_b")["arguments"])
    assert done.returncode != 0 and "test-2" in done.stderr


def test_the_supervisors_own_settings_pass(done: GatedJob) -> None:
    source = done.folder / "input" / "b.mp4"
    (done.folder / "extract_b.ini").write_text("")
    gate_words = ["-z", "256", "-C", "extract_b.ini", "-N", "2"]
    code = f"import sys; sys.path.insert(0, {str(done.programs)!r}); import gate, pathlib; "
    code += f"gate.admit_by_hand('extract', pathlib.Path({str(source)!r}), {gate_words!r})"
    assert done.by_hand("-c", code).returncode == 0
    assert done.by_hand("-c", code.replace("extract_b.ini'", "extract_a.ini'")).returncode != 0


ELSEWHERE: dict[str, tuple[str, list[str], Callable[[GatedJob], Any]]] = {
    "another model": ("convert", ["model", "mine"], lambda job: None),
    "other alignments": ("convert", ["alignments_a.json", "mine.json"], lambda job: None),
    "another output": ("convert", ["quarantine", "mine"], lambda job: None),
    "a source by another name": ("convert", ["-w", "--input-di=mine.mp4", "opencv", "x"], lambda job: None),
    "a model of one's own": ("convert", [], written("model/weights.bin")),
    "alignments of one's own": ("convert", [], written("alignments_a.json")),
    "no record of the model": ("convert", [], without("stages/train/made.json")),
    "frames elsewhere": ("release", ["quarantine", "mine"], lambda job: None),
    "a result elsewhere": ("release", ["result", "mine"], lambda job: None),
    "frames of one's own": ("release", [], written("quarantine/a_1.png")),
    "a frame more": ("release", [], written("quarantine/a_2.png")),
    "faces elsewhere": ("extract_b", ["faces_b", "mine"], lambda job: None),
    "settings of one's own": ("extract_b", ["-z", "-C"], lambda job: None),
}  # fmt: skip


@pytest.mark.parametrize("what", ELSEWHERE)
def test_a_script_run_by_hand_works_on_nothing_but_what_its_stage_may(done: GatedJob, what: str) -> None:
    """The role's own scripts, and not the doubles of these tests."""
    stage, words, change = ELSEWHERE[what]
    programs = done.place / "own"
    shutil.copytree(done.programs, programs)
    for name in ("faces", "release"):
        shutil.copytree(REAL_PROGRAMS / name, programs / name, dirs_exist_ok=True)
    given = dict(zip(words[::2], words[1::2], strict=True))
    change(done)
    script = str(programs / done.spec(stage)["script"])
    said = done.by_hand(script, *(given.get(word, word) for word in done.spec(stage)["arguments"]))
    shutil.rmtree(programs)
    assert said.returncode == 30, said


@pytest.mark.parametrize("script", ["faces/extract.py", "faces/convert.py", "release/release.py"])
def test_each_script_of_the_role_calls_the_gate(job: GatedJob, script: str) -> None:
    """The role's own scripts, and not the doubles of these tests."""
    stage = {"faces/extract.py": "extract_a", "faces/convert.py": "convert", "release/release.py": "release"}[script]
    shutil.copytree(REAL_PROGRAMS / "faces", job.programs / "faces", dirs_exist_ok=True)
    shutil.copytree(REAL_PROGRAMS / "release", job.programs / "release", dirs_exist_ok=True)
    (job.folder / "input" / "a.mp4").write_text("somebody else")
    done = job.by_hand(str(job.programs / script), *job.spec(stage)["arguments"])
    assert done.returncode == 27, done
    assert "test-1" in done.stdout
    elsewhere = [word.replace("input/a.mp4", "a.mp4") for word in job.spec(stage)["arguments"]]
    assert job.by_hand(str(job.programs / script), *elsewhere).returncode == 30


# -- a revoked consent ---------------------------------------------------------------------------------------


def test_what_was_made_on_a_revoked_consent_is_purged(job: GatedJob) -> None:
    job.make("extract_a", "extract_b")
    other = job.folder.parent / "other"
    shutil.copytree(job.folder, other)
    record = job.record(job.media["b"], "b")
    shutil.copy(record, other / "consent" / "b.yml")
    for path in other.glob("stages/*/*.json"):
        path.write_text(path.read_text().replace("test-2", "someone-else"))
    (job.folder / "pause").write_text("0.1")
    job.start(job.spec("train", iterations=500))
    answer = purge(job, "test-2")
    assert answer["changed"] and answer["stopped"] == ["job/train"]
    assert set(answer["removed"]) == {"job"}
    left = {str(path.relative_to(job.folder)) for path in job.folder.rglob("*") if path.is_file()}
    assert "revoked.json" in left and "consent/a.yml" in left
    assert not any(path.startswith("consent/b.") for path in left)  # neither name nor picture of who revoked
    assert not any(
        path.endswith((".mp4", ".png", ".bin", "log.txt", "made.json")) for path in left - {"consent/a.reference.png"}
    )
    assert (other / "faces_b").exists()
    assert not purge(job, "test-2")["changed"]
    assert not purge(job, "nobody")["changed"]
    more_faces_again = job.folder / "faces_b"
    more_faces_again.mkdir()
    assert purge(job, "test-1")["changed"]
    told = json.loads((job.folder / "revoked.json").read_text())
    assert told["ids"] == ["test-1", "test-2"] and {"faces_a", "faces_b", "input"} <= set(told["removed"])


def test_a_stage_that_does_not_stop_keeps_nothing_from_being_purged(job: GatedJob) -> None:
    job.make("extract_b")
    linked = job.place / "kept elsewhere"
    shutil.copytree(job.folder, linked)
    (job.folder.parent / "linked").symlink_to(linked)
    stuck = job.folder.with_name("a stuck job")
    shutil.copytree(job.folder, stuck)
    (stuck / "stages/extract_b/state.json").write_text("{}")
    with (stuck / "stages/extract_b/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        words = [str(job.program), "purge", str(job.folder.parent), "test-2"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    told = json.loads(done.stdout)
    assert done.returncode == 1 and "a stuck job" in told["error"] and "\n" not in told["error"]
    for folder in (job.folder, linked, stuck):
        assert not (folder / "faces_b").exists() and (folder / "revoked.json").exists()


def test_what_cannot_be_removed_is_told_and_the_rest_goes(job: GatedJob, monkeypatch: pytest.MonkeyPatch) -> None:
    import purge as removing

    real = removing._remove

    def refuse_input(path: Path) -> None:
        if path.name == "input":
            raise PermissionError(13, "Permission denied", str(path))
        real(path)

    job.make("extract_b")
    monkeypatch.setattr(removing, "_remove", refuse_input)
    with pytest.raises(PermissionError):
        removing.remove(job.folder, ["test-2"])
    told = json.loads((job.folder / "revoked.json").read_text())
    assert "faces_b" in told["removed"] and "input" not in told["removed"]
    assert not (job.folder / "faces_b").exists() and (job.folder / "input").exists()


def a_pipe(job: Path) -> None:
    (job / "consent").mkdir()
    os.mkfifo(job / "consent/z.yml")


def dangling(path: Path) -> None:
    if path.exists():
        path.rmdir()
    path.parent.mkdir(exist_ok=True)
    path.symlink_to("nowhere")


def a_closed_folder(job: Path) -> None:
    (job / "stages" / "train").mkdir(parents=True)
    (job / "stages" / "train").chmod(0)


# What somebody may have left beside the others' jobs, each as a job of its own.
ODD: dict[str, Callable[[Path], object]] = {
    "a folder for a record": lambda job: (job / "consent/z.yml").mkdir(parents=True),
    "a list of consents": lambda job: made_json(job, '{"consents": [1]}'),
    "no consents of anybody": lambda job: made_json(job, '{"consents": {"a": 1}}'),
    "deeply nested": lambda job: made_json(job, "[" * 200_000),
    "no JSON": lambda job: made_json(job, "{"),
    "a dangling record": lambda job: dangling(job / "consent/a.yml"),
    "a pipe": a_pipe,
    "no folder of records": lambda job: (job / "consent").touch(),
    "a closed folder": a_closed_folder,
    "a closed job": lambda job: job.chmod(0),
    "a dangling job": lambda job: dangling(job),
}


def made_json(job: Path, text: str) -> None:
    (job / "stages" / "train").mkdir(parents=True)
    (job / "stages" / "train" / "made.json").write_text(text)


def as_owner(job: GatedJob) -> dict[str, Any]:
    """Root may read whatever is closed: the jobs are another user's, as on a host, and are purged as him."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    for path in (job.place, *job.place.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
    for path in (job.place, *job.place.parents[:-2]):
        path.chmod(path.stat().st_mode | 0o055)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid}


@pytest.mark.parametrize("program", ["supervisor.py", "units.py"])
def test_odd_jobs_are_named_and_all_others_are_purged(job: GatedJob, program: str) -> None:
    (job.folder / "faces_b").mkdir()
    for what, leave in ODD.items():
        (job.folder.parent / what).mkdir()
        leave(job.folder.parent / what)
    (job.folder.parent / "notes.txt").touch()
    words = [str(job.programs / program), "purge", str(job.folder.parent), "test-2"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, **as_owner(job))
    error = json.loads(done.stdout)["error"]
    assert done.returncode == 1 and not [what for what in ODD if f" {what}: " not in error], error
    assert "notes.txt" not in error and "Traceback" not in error and "supervisor failed" not in error, error
    assert not (job.folder / "faces_b").exists()
    assert not list(job.folder.glob("consent/b.*")) and (job.folder / "consent/a.yml").exists()


def test_deeply_nested_records_are_none(job: GatedJob) -> None:
    made_json(job.folder, "[" * 200_000)
    assert records.read_json(job.folder / "stages" / "train" / "made.json") == {}


def test_what_is_odd_in_a_purged_job_goes_with_it(job: GatedJob) -> None:
    """It is known to have had the consent, so that nothing in it needs to be read."""
    made_json(job.folder, "[" * 200_000)
    (job.folder / "consent/z.yml").mkdir()
    (job.folder / "stages/notes").touch()
    (job.folder / "revoked.json").write_text('{"ids": 5, "removed": [1]}')
    assert purge(job, "test-2")["removed"]["job"]
    left = sorted(str(path.relative_to(job.folder)) for path in job.folder.rglob("*") if path.name != "consent")
    assert [path for path in left if not path.startswith("consent/a.")] == ["revoked.json", "stages", "stages/train"]
    told = json.loads((job.folder / "revoked.json").read_text())
    assert told["ids"] == ["test-2"] and "stages/train/made.json" in told["removed"]
    assert not purge(job, "test-2")["changed"]


@pytest.mark.parametrize("place", ["jobs/jobs/x", "jobs/x/y", "Jobs/other/jobs/x", "link/x"])
def test_a_job_where_revocation_does_not_look_is_refused(job: GatedJob, place: str) -> None:
    """It looks into folders of jobs, and not below what lies there."""
    (job.place / "jobs" / "inner").mkdir()
    (job.place / "link").symlink_to("jobs/inner")
    path = job.place / place
    path.mkdir(parents=True)
    with pytest.raises(gate.GateError) as told:
        gate.see_place(path)
    assert told.value.code == 30 and "put jobs side by side" in str(told.value)
    for honest in (job.folder, job.place / "large" / "jobs" / "x"):
        gate.see_place(honest)


def test_a_refusal_of_a_script_is_told_by_its_code(job: GatedJob) -> None:
    for code, told in ((24, 24), (1, None)):
        (job.programs / "faces/extract.py").write_text(f"import sys; sys.exit({code})")
        end = job.finish(job.spec("extract_b"))
        assert (end["exit_code"], end["code"]) == (code, told)


def test_status_is_told_without_the_gate(job: GatedJob) -> None:
    """It is asked for every second."""
    for name in ("gate", "purge"):
        (job.programs / f"{name}.py").write_text("raise SystemExit('too slow')")
    assert job.status("train")["alive"] is False
    assert job.ask("stop") == {"changed": False, "stopped": []}


def purge(job: GatedJob, *ids: str) -> Json:
    words = [str(job.program), "purge", str(job.folder.parent), *ids]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done
    answer: Json = json.loads(done.stdout)
    return answer
