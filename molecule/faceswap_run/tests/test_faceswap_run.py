"""After faceswap_run: is there a result, and is it what the role promises?"""

import json
import shlex
from typing import Any

import pytest
from testinfra.host import Host

PROBE = """
import av, json, sys
with av.open(sys.argv[1]) as video:
    stream = video.streams.video[0]
    print(json.dumps({
        "frames": sum(1 for _ in video.decode(video=0)), "rate": str(stream.average_rate),
        "size": [stream.width, stream.height], "sounds": len(video.streams.audio),
    }))
"""


def run(host: Host, *words: str) -> Any:
    return host.run(shlex.join(words))


@pytest.fixture
def supervisor(site: str) -> list[str]:
    return [f"{site}/var/bin/supervisor.py"]


@pytest.fixture
def job(site: str) -> str:
    return f"{site}/var/jobs/molecule"


def test_the_video_is_like_its_source(host: Host, engine: dict[str, Any], site: str, job: str) -> None:
    probes = [
        run(host, engine["python"], "-c", PROBE, path)
        for path in (f"{site}/out/molecule/molecule.mp4", f"{job}/input/a.mp4")
    ]
    assert [probe.rc for probe in probes] == [0, 0], probes
    result, source = (json.loads(probe.stdout) for probe in probes)
    assert result == source
    assert result["sounds"] == 1 and result["frames"] == 125


@pytest.mark.parametrize("stage", ["extract_a", "extract_b", "train", "convert", "release"])
def test_each_stage_is_complete_and_nobody_works_on_it(
    host: Host, supervisor: list[str], job: str, stage: str
) -> None:
    told = run(host, *supervisor, "status", job, stage)
    status = json.loads(told.stdout)
    assert status["complete"] and not status["alive"], host.file(f"{job}/stages/{stage}/log.txt").content_string


def test_the_model_has_the_wanted_iterations(host: Host, supervisor: list[str], job: str) -> None:
    assert json.loads(run(host, *supervisor, "status", job, "train").stdout)["iterations"] == 4


def test_the_report_opens_from_disk(host: Host, site: str) -> None:
    page = host.file(f"{site}/out/molecule/report.html").content_string
    assert page.startswith("<!DOCTYPE html>") or page.startswith("<!doctype html>")
    assert 'src="http' not in page and 'href="http' not in page


def test_nothing_is_writable_by_everyone(host: Host, site: str) -> None:
    assert run(host, "find", f"{site}/var", "-not", "-type", "l", "-perm", "-0002").stdout == ""
