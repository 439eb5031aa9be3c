"""`locked_venv` as Ansible runs it, with an empty lock: no package is asked for."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from ansible_collections.faceswap.ops.plugins.modules import locked_venv

COLLECTIONS = Path(locked_venv.__file__).parents[5]


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    lock = tmp_path / "lock file.txt"
    lock.write_text("# nothing is locked\n")
    return {"path": str(tmp_path / "a venv"), "lock": str(lock), "python": sys.executable}


def play(values: dict[str, Any], check: bool = False) -> dict[str, Any]:
    """Run the module in a process of its own, with its arguments on stdin."""
    arguments = json.dumps({"ANSIBLE_MODULE_ARGS": {**values, "_ansible_check_mode": check}})
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=arguments, capture_output=True, text=True, timeout=300
    )
    assert "Traceback" not in done.stderr, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


PROGRAM = f"""
import sys; sys.path.insert(0, {str(COLLECTIONS)!r})
from ansible.module_utils.testing import patch_module_args
from ansible_collections.faceswap.ops.plugins.modules import locked_venv
import json
given = json.load(sys.stdin)["ANSIBLE_MODULE_ARGS"]
with patch_module_args(given):
    locked_venv.main()
"""


def test_made_once_and_then_left_alone(values: dict[str, Any]) -> None:
    assert play(values, check=True)["changed"] and not Path(values["path"]).exists()
    made = play(values)
    assert made["changed"] and made["reason"] == "it is not there"
    assert subprocess.run([made["python"], "-c", "import sys; assert sys.prefix != sys.base_prefix"]).returncode == 0
    for check in (False, True):
        again = play(values, check)
        assert not again["changed"] and again["made"] == made["made"] != ""


def test_another_lock_makes_it_anew(values: dict[str, Any]) -> None:
    play(values)
    stray = Path(values["path"]) / "stray"
    stray.touch()
    Path(values["lock"]).write_text("# still nothing\n")
    assert play(values, check=True)["made"] == "" and stray.exists()
    again = play(values)
    assert again["changed"] and again["reason"] == "the lock file changed" and not stray.exists()


def test_an_update_of_the_same_python_leaves_it_alone(values: dict[str, Any], tmp_path: Path) -> None:
    play(values)
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.version += ' (rebuilt)'\n")
    rebuilt = tmp_path / "rebuilt"
    rebuilt.write_text(f"#!/bin/sh\nPYTHONPATH='{tmp_path}' exec '{sys.executable}' \"$@\"\n")
    rebuilt.chmod(0o755)
    told = subprocess.run([rebuilt, "-c", "import sys; print(sys.version)"], capture_output=True, text=True).stdout
    assert told.strip() == f"{sys.version} (rebuilt)"
    assert play({**values, "python": str(rebuilt)})["reason"] == "nothing changed"


def test_one_by_another_python_is_made_anew_once(values: dict[str, Any]) -> None:
    """An earlier version of the module wrote all of sys.version, and not when it was made."""
    play(values)
    marker = Path(values["path"]) / locked_venv.MARKER
    lock = json.loads(marker.read_text())["lock"]
    marker.write_text(json.dumps({"lock": lock, "python": sys.version}))
    assert play(values)["reason"] == "Python changed"
    assert play(values)["reason"] == "nothing changed"


def test_one_in_use_is_never_made_anew(values: dict[str, Any], tmp_path: Path) -> None:
    described = tmp_path / "engine.json"
    described.touch()
    values["described_by"] = str(described)
    program = play({**values, "described_by": None})["python"]
    (tmp_path / "a link").symlink_to(values["path"])
    Path(values["lock"]).write_text("# still nothing\n")
    for words in ([program], [str(tmp_path / "a link" / "bin" / "python")]):
        with subprocess.Popen([*words, "-c", "input()"], stdin=subprocess.PIPE) as job:
            refused = play(values)
            assert job.poll() is None
            job.kill()
        assert refused["failed"] and f"(the lock file changed), but process {job.pid} uses it: " in refused["msg"]
        assert "\n" not in refused["msg"]
        assert (Path(values["path"]) / locked_venv.MARKER).exists() and described.exists()
    assert play(values)["reason"] == "the lock file changed" and not described.exists()


def test_a_killed_run_is_made_good(values: dict[str, Any]) -> None:
    play(values)
    (Path(values["path"]) / locked_venv.MARKER).unlink()
    again = play(values)
    assert again["changed"] and again["reason"] == "it was never finished"
    assert not play(values)["changed"]


def test_a_package_that_is_not_to_be_had_leaves_no_finished_environment(values: dict[str, Any]) -> None:
    described = Path(values["lock"]).with_name("engine.json")
    values["described_by"] = str(described)
    play(values)
    described.touch()
    assert not play(values)["changed"] and described.exists()
    Path(values["lock"]).write_text("./no-such-package.whl --hash=sha256:" + "0" * 64 + "\n")
    assert play(values, check=True)["changed"] and described.exists()
    failed = play(values)
    assert failed["failed"] and failed["msg"].startswith("The packages could not be installed: ")
    assert locked_venv.reason_to_make(Path(values["path"]), {}) == "it was never finished"
    assert not described.exists()


def test_an_index_out_of_reach_is_told_as_that(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    Path(values["lock"]).write_text("nothing-of-this-name==1.0 --hash=sha256:" + "0" * 64 + "\n")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    failed = play(values)
    assert failed["failed"] and "this host does not reach the package index" in failed["msg"]
    assert "\n" not in failed["msg"] and "stderr" not in failed
    Path(values["lock"]).write_text("# nothing is locked\n")
    assert play(values)["changed"]


def test_everybody_may_read_it(values: dict[str, Any]) -> None:
    mask = os.umask(0o077)
    try:
        play(values)
    finally:
        os.umask(mask)
    below = [path for path in Path(values["path"]).rglob("*") if not path.is_symlink()]
    assert below and all(path.stat().st_mode & 0o004 and not path.stat().st_mode & 0o022 for path in below)


def test_two_at_once_make_it_once(values: dict[str, Any]) -> None:
    """The lock is held as by a pip whose controller is gone; when that ends, there is an environment that fits."""
    play(values)
    marker = Path(values["path"]) / locked_venv.MARKER
    marker.rename(marker.with_suffix(".aside"))
    answers: list[dict[str, Any]] = []
    with (Path(values["path"]).parent / ".a venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        other = threading.Thread(target=lambda: answers.append(play(values)))
        other.start()
        time.sleep(2.5)
        assert not answers
        marker.with_suffix(".aside").rename(marker)
    other.join()
    assert answers[0]["reason"] == "nothing changed" and not answers[0]["changed"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"python": "/nonexistent/python"}, "name another Python"),
        ({"oldest": "3.90", "newest": "3.99"}, "the lock file holds for 3.90 to 3.99: name a Python of these"),
        ({"need_mb": 10**9}, "free some room or choose another folder"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(
    values: dict[str, Any], change: dict[str, Any], words: str
) -> None:
    refused = play({**values, **change})
    assert refused["failed"] and words in refused["msg"] and "\n" not in refused["msg"]
    assert not Path(values["path"]).exists()


def test_the_environment_of_before_makes_room(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes before anything comes: a killed run must not leave a disk that is too full for the next."""
    old = Path(values["path"])
    old.mkdir()
    (old / "large").write_bytes(bytes(5 << 20))
    os.sync()
    usage = shutil.disk_usage(old)
    monkeypatch.setattr(locked_venv.shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
    module: Any = Mock(params={**values, "need_mb": 6})
    locked_venv.LockedVenv(module).check_room()
    assert not module.fail_json.called
    module.params["need_mb"] = 7
    locked_venv.LockedVenv(module).check_room()
    assert module.fail_json.call_args.kwargs["msg"].startswith("Only 6 MB are free in ")


def test_versions_compare_as_numbers() -> None:
    assert locked_venv.version("3.9") < locked_venv.version("3.11") < locked_venv.version("3.13")


def wheel(folder: Path, name: str, version: str, needs: str = "") -> None:
    """A package with one file in an index below `folder`."""
    place = folder / name
    place.mkdir(parents=True)
    file = f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + (
        f"Requires-Dist: {needs}\n" if needs else ""
    )
    with zipfile.ZipFile(place / file, "w") as pack:
        pack.writestr(f"{name}.py", "LIMIT = 1\n")
        pack.writestr(f"{about}/METADATA", metadata)
        pack.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        pack.writestr(f"{about}/RECORD", "")
    (place / "index.html").write_text(f'<a href="{file}">{file}</a>')


@pytest.fixture
def with_builds(values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A list without hashes, and the index that alone has its package and what that needs."""
    for folder in ("vendor", "usual"):
        (tmp_path / folder).mkdir()
    wheel(tmp_path / "vendor", "torchlike", "1.0+gpu", "companion")
    wheel(tmp_path / "vendor", "companion", "2.0")
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "usual").as_uri())
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "builds.txt").write_text("torchlike==1.0+gpu\n")
    return {**values, "builds": str(tmp_path / "builds.txt"), "builds_index": (tmp_path / "vendor").as_uri()}


PATCH = {"file": "torchlike.py", "pattern": r"^LIMIT = (\d)$", "by": r"LIMIT = 1\1"}


def test_builds_come_from_their_index_with_what_they_need(
    with_builds: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    with_builds["patches"] = [PATCH]
    made = play(with_builds)
    assert made.get("reason") == "it is not there", made
    shown = [made["python"], "-c", "import companion, torchlike; print(torchlike.LIMIT)"]
    assert subprocess.run(shown, capture_output=True).stdout == b"11\n"
    # What pip puts aside lies beside the environment, and no cache was begun: either may be on a small disk.
    places = re.findall(r"Created temporary directory: (.+)", (tmp_path / "log").read_text())
    assert places and all(place.startswith(f"{with_builds['path']}/.pip-") for place in places)
    assert not list(Path(with_builds["path"]).glob(".pip-*")) and not (tmp_path / "xdg").exists()

    assert play(with_builds)["reason"] == "nothing changed"
    other = {**with_builds, "builds_index": "https://elsewhere.example"}
    assert play(other, check=True)["reason"] == "the list of builds changed"
    assert play({**with_builds, "patches": []}, check=True)["reason"] == "its patches changed"
    # In check mode a list that goes by its content is not there before it is brought.
    for key, word in (("builds", "the list of builds"), ("lock", "the lock file")):
        told = play({**with_builds, key: str(tmp_path / "none.txt")}, check=True)
        assert told["changed"] and told["reason"] == f"{word} changed"


def test_a_login_of_the_index_is_shown_to_nobody(
    with_builds: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = tmp_path / "words"
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys\nwith open({str(words)!r}, 'a') as file: print(sys.orig_argv, file=file)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PIP_RETRIES", "0")
    with_builds["builds_index"] = "http://me:secret@127.0.0.1:1/simple"
    failed = play(with_builds)
    assert failed["failed"]
    assert "builds.txt" in words.read_text() and "secret" not in words.read_text()
    assert "secret" not in json.dumps({key: value for key, value in failed.items() if key != "invocation"})


def test_builds_with_hashes_are_complete_too(with_builds: dict[str, Any], tmp_path: Path) -> None:
    [file] = (tmp_path / "vendor" / "torchlike").glob("*.whl")
    row = "torchlike==1.0+gpu --hash=sha256:"
    Path(with_builds["builds"]).write_text(row + hashlib.sha256(file.read_bytes()).hexdigest() + "\n")
    made = play(with_builds)
    assert subprocess.run([made["python"], "-c", "import torchlike"]).returncode == 0
    assert subprocess.run([made["python"], "-c", "import companion"], capture_output=True).returncode == 1
    Path(with_builds["builds"]).write_text(row + "0" * 64 + "\n")
    assert play(with_builds)["failed"] and play(with_builds, check=True)["reason"] == "it was never finished"


def test_a_patch_that_does_not_fit_leaves_no_finished_environment(with_builds: dict[str, Any]) -> None:
    failed = play({**with_builds, "patches": [{**PATCH, "pattern": r"^LIMIT = (2)$"}]})
    assert failed["msg"].startswith("The packages were installed, but not changed as they have to be: The patch of ")
    assert play(with_builds, check=True)["reason"] == "it was never finished"


def test_a_full_disk_is_told_as_that() -> None:
    said = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
    assert locked_venv.why_not(said) == "the disk became full: free some room or choose another folder."
