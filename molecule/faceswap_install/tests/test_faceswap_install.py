"""After faceswap_install: does the host have an engine that works?"""

import json
import re
import shlex
from pathlib import Path
from typing import Any

from testinfra.host import Host

ROOT = Path(__file__).parents[3]


def run(host: Host, *words: str) -> Any:
    return host.run(shlex.join(words))


def test_the_engine_tells_its_commands(host: Host, engine: dict[str, Any]) -> None:
    told = run(host, *engine["command"], "--help")
    assert told.rc == 0
    assert {"extract", "train", "convert"} <= set(re.findall(r"\w+", told.stdout))
    assert "not Faceswap" in " ".join(told.stdout.split())


def test_an_unknown_option_is_an_error(host: Host, engine: dict[str, Any]) -> None:
    refused = run(host, *engine["command"], "extract", "-i", "x", "--unknown")
    assert refused.rc == 2 and "unrecognized arguments" in refused.stderr


def test_just_the_locked_packages_are_there(host: Host, engine: dict[str, Any]) -> None:
    listed = run(host, engine["python"], "-m", "pip", "list", "--format", "json", "--exclude", "pip")
    found = {package["name"].lower().replace("_", "-"): package["version"] for package in json.loads(listed.stdout)}
    found.pop("setuptools", None)  # venv brings it on Python 3.11
    lock = (ROOT / "requirements" / "engine.txt").read_text()
    # A package may be locked in more than one version, each for some Pythons.
    locked = set(re.findall(r"^([a-z0-9._-]+)==([^\s;\\]+)", lock, re.M))
    assert found
    assert set(found.items()) - locked == set()


def test_the_engine_finds_a_face(host: Host, engine: dict[str, Any], site: str) -> None:
    clip, alignments = str(ROOT / "demo" / "clipA.mp4"), f"{site}/found.json"
    done = run(host, *engine["command"], "extract", "-i", clip, "-p", alignments, "-N", "50")
    assert done.rc == 0, done.stdout + done.stderr
    faces = [face for frame in json.loads(host.file(alignments).content_string).values() for face in frame]
    assert len(faces) == 3
    assert all(len(face["landmarks_2d"]) == 68 for face in faces)


def test_nothing_is_writable_by_everyone(host: Host, site: str) -> None:
    assert run(host, "find", f"{site}/engine", "-not", "-type", "l", "-perm", "-0002").stdout == ""
