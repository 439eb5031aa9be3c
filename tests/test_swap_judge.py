"""The judge must be able to say no: to frames without a swap and to an untrained model. To the demo it says yes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import swap_judge

ROOT = Path(__file__).parents[1]
A, B = ROOT / "demo/clipA.mp4", ROOT / "demo/clipB.mp4"
Clips = tuple[list[swap_judge.Image8], list[swap_judge.Image8]]


@pytest.fixture(scope="module")
def clips() -> Clips:
    return swap_judge.read_video(A), swap_judge.read_video(B)


@pytest.fixture(scope="module")
def judge(clips: Clips) -> swap_judge.Judge:
    return swap_judge.Judge(*clips)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job folder made by the engine in the whole way, but with 10 iterations of training."""
    job = tmp_path_factory.mktemp("job")

    def engine(*arguments: object) -> None:
        command = [sys.executable, ROOT / "engine/faceswap.py", *arguments]
        subprocess.run(list(map(str, command)), check=True, capture_output=True, timeout=300)

    for side, clip in (("a", A), ("b", B)):
        engine("extract", "-i", clip, "-o", job / f"faces_{side}", "-p", job / f"alignments_{side}.json")
    engine("train", "-A", job / "faces_a", "-B", job / "faces_b", "-m", job / "model", "-b", 6, "-i", 10)
    alignments = job / "alignments_a.json"
    engine("convert", "-i", A, "-p", alignments, "-m", job / "model", "-o", job / "quarantine")
    return job


def judge_command(*swapped: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "tests/swap_judge.py", "--a", A, "--b", B, *swapped]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)


def short(verdict: swap_judge.Verdict) -> set[str]:
    return {name for name, _, _, ok in verdict.lines() if not ok}


def test_an_untrained_model_fails(untrained: Path) -> None:
    """It fails for the faces alone: outside them nothing was changed."""
    alignments = untrained / "alignments_a.json"
    result = judge_command("--frames", untrained / "quarantine", "--alignments", alignments)
    assert result.returncode == 1, result.stdout + result.stderr
    figures = {line.split()[0]: line.split()[-1] for line in result.stdout.splitlines()}
    assert figures["swapped_nearer_b"] == "short"
    assert figures["outside_difference"] == "ok"
    assert figures["source_nearer_a"] == "ok"


def test_unswapped_frames_fail_by_their_identity_alone(
    judge: swap_judge.Judge, clips: Clips, untrained: Path
) -> None:
    a, _ = clips
    verdict = judge.verdict(a, swap_judge.read_landmarks(untrained / "alignments_a.json"))
    assert verdict == swap_judge.Verdict(1, 0, 1, 0, 0)
    assert short(verdict) == {"swapped_nearer_b"}


def test_what_is_wrong_is_found(judge: swap_judge.Judge, clips: Clips, untrained: Path) -> None:
    """B's own frames are B but move otherwise; a stain beside the face and frames without a face are seen."""
    a, b = clips
    verdict = judge.verdict(b, None)
    assert verdict.swapped_nearer_b == 1
    assert short(verdict) == {"landmark_error"}
    stained = a[0].copy()
    stained[5, 5] += 2
    blank = [np.full_like(frame, 90) for frame in a[1:]]
    landmarks = swap_judge.read_landmarks(untrained / "alignments_a.json")
    assert judge.verdict([stained, *a[1:]], landmarks).outside_difference == 2
    verdict = judge.verdict([stained, *blank], landmarks)
    assert verdict.face_found == 1 / swap_judge.SAMPLES
    assert short(verdict) == {"swapped_nearer_b", "face_found", "outside_difference"}


def test_the_outside_is_neither_all_nor_nothing(untrained: Path) -> None:
    """The face itself may change, the frame's corners and most of its area may not."""
    for landmarks in swap_judge.read_landmarks(untrained / "alignments_a.json")[::12]:
        assert landmarks is not None
        outside = swap_judge.untouched(landmarks, (320, 320))
        assert not outside[tuple(landmarks.round().astype(int).clip(0, 319).T[::-1])].any()
        assert outside[0, 0]
        assert outside[-1, -1]
        assert outside.mean() > 0.6


@pytest.mark.demo
def test_the_demo_is_a_real_swap() -> None:
    folder = os.environ.get("FACESWAP_DEMO_JOB")
    if not folder:
        pytest.skip("FACESWAP_DEMO_JOB does not name a finished demo job")
    job = Path(folder)
    result = judge_command("--frames", job / "quarantine", "--alignments", job / "alignments_a.json")
    assert result.returncode == 0, result.stdout + result.stderr
    (released,) = (job / "result").glob("*.mp4")
    result = judge_command("--video", released)
    assert result.returncode == 0, result.stdout + result.stderr
