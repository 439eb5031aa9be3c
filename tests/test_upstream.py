"""The real Faceswap from both clips of the demo to a released video, with the judge that the demo has."""

import json
from pathlib import Path

import av
import pytest
import upstream
from upstream import upstream_engine
from upstream_job import ROOT, Faceswap, judge

__all__ = ["upstream_engine"]
pytestmark = [pytest.mark.upstream, upstream.needs_source]


@pytest.fixture(scope="module")
def done(upstream_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Faceswap:
    faceswap = Faceswap(upstream_engine, tmp_path_factory.mktemp("a whole job"))
    faceswap.play()
    return faceswap


def test_the_swap_passes_the_judge_of_the_demo(done: Faceswap) -> None:
    judged = judge(done.jobs / "swap")
    assert judged.returncode == 0, judged.stdout + judged.stderr


def test_the_video_is_like_its_source(done: Faceswap) -> None:
    def facts(path: Path) -> tuple[int, object, int, int, int]:
        with av.open(str(path)) as container:
            [video] = container.streams.video
            count = sum(1 for _ in container.decode(video))
            return count, video.average_rate, video.width, video.height, len(container.streams.audio)

    released = done.jobs.parent.parent / "out" / "swap" / "swap.mp4"
    assert facts(released) == facts(ROOT / "demo" / "clipA.mp4")


def test_each_side_comes_with_its_numbers_and_a_contact_sheet(done: Faceswap) -> None:
    for side in "ab":
        home = done.jobs.parent.parent / "out" / "swap" / "faces" / side
        report = json.loads((home / "report.json").read_text())
        assert report["faces"] == 125
        assert (home / "sheet.jpg").stat().st_size > 10_000


def test_a_second_run_changes_nothing(done: Faceswap) -> None:
    assert "changed=0" in done.play().rpartition("PLAY RECAP")[2]
