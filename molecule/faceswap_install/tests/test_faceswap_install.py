"""After faceswap_install: does the host have an engine that works for everybody, and that only root can change?"""

import json
import re
import shlex
from pathlib import Path
from typing import Any

from testinfra.host import Host

testinfra_hosts = ["ansible://faceswap"]

ROOT = Path(__file__).parents[3]
FOLDER = "/opt/faceswap-oci"
# As whoever has nothing on the host: no home, and no place of its own but /tmp.
NOBODY = ("sudo", "-n", "-u", "nobody", "env", "-C", "/", "HOME=/nonexistent")


def run(host: Host, *words: str) -> Any:
    return host.run(shlex.join(words))


def test_the_engine_tells_its_commands(host: Host, engine: dict[str, Any]) -> None:
    told = run(host, *NOBODY, *engine["command"], "--help")
    assert told.rc == 0, told.stderr
    assert {"extract", "train", "convert"} <= set(re.findall(r"\w+", told.stdout))
    assert "not Faceswap" in " ".join(told.stdout.split())


def test_an_unknown_option_is_an_error(host: Host, engine: dict[str, Any]) -> None:
    refused = run(host, *NOBODY, *engine["command"], "extract", "-i", "x", "--unknown")
    assert refused.rc == 2 and "unrecognized arguments" in refused.stderr


def test_just_the_locked_packages_are_there(host: Host, engine: dict[str, Any]) -> None:
    listed = run(host, *NOBODY, engine["python"], "-m", "pip", "list", "--format", "json", "--exclude", "pip")
    found = {package["name"].lower().replace("_", "-"): package["version"] for package in json.loads(listed.stdout)}
    found.pop("setuptools", None)  # venv brings it on Python 3.11
    lock = (ROOT / "requirements" / "engine.txt").read_text()
    # A package may be locked in more than one version, each for some Pythons.
    locked = set(re.findall(r"^([a-z0-9._-]+)==([^\s;\\]+)", lock, re.M))
    assert found
    assert set(found.items()) - locked == set()


def test_the_engine_finds_a_face_for_an_unprivileged_user(host: Host, engine: dict[str, Any]) -> None:
    place = run(host, *NOBODY, "mktemp", "-d").stdout.strip()
    words = (
        *NOBODY,
        *engine["command"],
        "extract",
        "-i",
        "/var/tmp/clip.mp4",
        "-p",
        f"{place}/found.json",
        "-N",
        "50",
    )
    done = run(host, *words)
    assert done.rc == 0, done.stdout + done.stderr
    told = run(host, "sudo", "-n", "cat", f"{place}/found.json").stdout
    faces = [face for frame in json.loads(told).values() for face in frame]
    assert len(faces) == 3
    assert all(len(face["landmarks_2d"]) == 68 for face in faces)


def test_it_computes_right_on_the_device_that_the_host_has(host: Host, engine: dict[str, Any]) -> None:
    done = run(host, *NOBODY, engine["python"], f"{FOLDER}/engine/try_engine.py", f"{FOLDER}/engine/engine.json")
    assert done.rc == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["library"] == "JAX" and not found["on_gpu"]  # a test host has no GPU


def test_its_code_is_compiled_already(host: Host, engine: dict[str, Any]) -> None:
    """Nobody but root could keep the byte code, so that each start would compile it all again."""
    folder = str(Path(engine["command"][-1]).parent)
    load = f"import sys; sys.path.insert(0, {folder!r}); import {', '.join(engine['modules'])}"
    told = run(host, *NOBODY, engine["python"], "-v", "-c", load)
    assert told.rc == 0, told.stderr
    assert f"# code object from '{folder}/minifaceswap/__pycache__/" in told.stderr
    compiled_now = re.findall(rf"# code object from '?({re.escape(FOLDER)}\S+\.py)\b", told.stderr)
    assert compiled_now == []


def test_only_root_can_change_anything(host: Host) -> None:
    for wrong in (("-perm", "/022", "-not", "-type", "l"), ("-not", "-user", "root"), ("-not", "-group", "root")):
        assert run(host, "sudo", "-n", "find", FOLDER, *wrong).stdout == ""


def test_everybody_can_read_everything(host: Host) -> None:
    seen = run(host, *NOBODY, "find", FOLDER, "-not", "-readable")
    assert seen.rc == 0 and seen.stdout == "" and seen.stderr == ""
