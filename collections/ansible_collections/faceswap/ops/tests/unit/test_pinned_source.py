"""`pinned_source` on repositories and archives that git has just made."""

import json
import os
import re
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.faceswap.ops.plugins.action import pinned_source
from ansible_collections.faceswap.ops.plugins.action.pinned_source import SourceError, provide
from ansible_collections.faceswap.ops.plugins.module_utils.patches import PatchError


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=me", "-c", "user.email=me@example", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *identity, "-C", str(folder), *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A program of which the second commit is checked out, with a file of nobody's beside it."""
    folder = tmp_path / "a check out"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    (folder / "lib").mkdir()
    for text in ("one", "two"):
        (folder / "program.py").write_text(f"VERSION = {text!r}\n")
        (folder / "lib" / "part.py").write_text("LIMIT = (2, 12)\n")
        git(folder, "add", "-A")
        git(folder, "commit", "--quiet", "-m", text)
    (folder / "stray.txt").touch()
    return folder


@pytest.fixture
def first(checkout: Path) -> str:
    return git(checkout, "rev-parse", "HEAD~1")


@pytest.fixture
def get(tmp_path: Path) -> Callable[..., tuple[Path, bool]]:
    def get(source: Path | str, commit: str, patches: Any = ()) -> tuple[Path, bool]:
        return provide(str(source), commit, "program.py", list(patches), tmp_path / "cache")

    return get


Get = Callable[..., tuple[Path, bool]]


def archive(checkout: Path, name: str, *words: str) -> Path:
    path = checkout.parent / name
    git(checkout, "archive", f"--output={path}", *words)
    return path


def sources(checkout: Path, commit: str) -> dict[str, Path | str]:
    return {
        "a checkout": checkout,
        "a URL": f"file://{checkout}",
        "a tar": archive(checkout, "a.tar", commit),
        "a tar.gz with a folder around it": archive(checkout, "a.tar.gz", "--prefix=program-1/", commit),
        "a zip": archive(checkout, "a.zip", commit),
        "a zip with a folder around it": archive(checkout, "b.zip", "--prefix=program-1/", commit),
    }


@pytest.mark.parametrize("kind", [
    "a checkout", "a URL", "a tar", "a tar.gz with a folder around it", "a zip", "a zip with a folder around it",
])  # fmt: skip
def test_just_the_files_of_the_commit_are_there(checkout: Path, first: str, get: Get, kind: str) -> None:
    path, made = get(sources(checkout, first)[kind], first)
    assert made
    found = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    assert found == {"program.py", "lib/part.py", ".commit"}
    assert (path / "program.py").read_text() == "VERSION = 'one'\n"
    assert (path / ".commit").read_text() == f"{first}\n"


def test_what_is_there_is_asked_for_no_more(checkout: Path, first: str, get: Get, monkeypatch: Any) -> None:
    path, _ = get(checkout, first)
    monkeypatch.setenv("PATH", "/nonexistent")
    checkout.rename(checkout.parent / "gone")
    assert get(checkout, first) == (path, False)


def test_a_server_that_gives_no_commit_alone(checkout: Path, first: str, get: Get) -> None:
    """As the oldest protocol has it: only tips of branches are given."""
    git(checkout, "config", "uploadpack.allowAnySHA1InWant", "false")
    version = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "protocol.version", "GIT_CONFIG_VALUE_0": "0"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in version.items():
            patch.setenv(name, value)
        path, _ = get(f"file://{checkout}", first)
    assert (path / "program.py").read_text() == "VERSION = 'one'\n"


@pytest.mark.parametrize("remote", [False, True])
def test_a_source_without_the_commit(checkout: Path, get: Get, tmp_path: Path, remote: bool) -> None:
    source = f"file://{checkout}" if remote else str(checkout)
    with pytest.raises(SourceError) as told:
        get(source, "0" * 40)
    assert str(told.value).startswith(f"{source} does not have the commit {'0' * 40}: ")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("file:///nonexistent", r"git cannot read file:///nonexistent \(.*not appear to be a git repository\): see"),
        ("http://127.0.0.1:1/x.git", r"git cannot read http://127.0.0.1:1/x.git \(.*connect.*\): see"),
        ("{tmp}/none", r"There is no .*/none on the controller: see"),
        ("{tmp}/plain", r".*/plain is a folder without git's data, so that nobody knows its commit: give"),
        ("{tmp}/plain/file", r".*/plain/file is no whole archive: give one that `git archive` made"),
        ("{tmp}/plain/half.tar.gz", r".*/half.tar.gz is no whole archive: give one that `git archive` made"),
        ("{tmp}/other.zip", r".*/other.zip is an archive of the commit [0-9a-f]{40}, and the commit \w+ is wanted"),
        ("{tmp}/tree.tar", r".*/tree.tar is an archive without a commit's name, and the commit"),
    ],
)  # fmt: skip
def test_what_is_no_such_source(checkout: Path, first: str, get: Get, source: str, sentence: str) -> None:
    tmp = checkout.parent
    plain = tmp / "plain"
    plain.mkdir()
    (plain / "file").write_text("{}\n")
    (plain / "half.tar.gz").write_bytes(archive(checkout, "a.tar.gz", first).read_bytes()[:150])
    archive(checkout, "other.zip", "HEAD")
    archive(checkout, "tree.tar", f"{first}^{{tree}}")
    with pytest.raises(SourceError) as told:
        get(source.replace("{tmp}", str(tmp)), first)
    assert re.match(sentence, str(told.value))
    assert "\n" not in str(told.value)
    assert list((tmp / "cache").iterdir()) == [tmp / "cache" / ".lock"]


@pytest.mark.parametrize("commit", ["main", "latest", "v3.0.0", "acdcfa8", "A" * 40])
def test_only_a_whole_commit_is_one(checkout: Path, get: Get, commit: str) -> None:
    with pytest.raises(SourceError, match=rf"^{commit} is no commit: give all 40 hexadecimal digits\.$"):
        get(checkout, commit)


def test_another_programs_source(checkout: Path, first: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"has no faceswap\.py: it is another program's source\.$"):
        provide(str(checkout), first, "faceswap.py", [], tmp_path / "cache")


def test_without_git(checkout: Path, first: str, get: Get, monkeypatch: Any) -> None:
    packed = archive(checkout, "a.tar.gz", first)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(SourceError, match=r"^git is not installed on the controller: install it, or give"):
        get(checkout, first)
    assert get(packed, first)[1]


@pytest.fixture
def no_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tarfile as Python 3.11.2 has it, which is Debian 12's."""
    extract = tarfile.TarFile.extractall

    def extractall(self: tarfile.TarFile, path: str | Path) -> None:
        extract(self, path, filter="fully_trusted")

    monkeypatch.setattr(tarfile.TarFile, "extractall", extractall)
    monkeypatch.delattr(tarfile, "data_filter")


@pytest.mark.usefixtures("no_filters")
def test_a_python_without_filters(checkout: Path, first: str, get: Get) -> None:
    (checkout / "link").symlink_to("program.py")
    git(checkout, "add", "link")
    git(checkout, "commit", "--quiet", "-m", "a link")
    path, _ = get(checkout, git(checkout, "rev-parse", "HEAD"))
    assert (path / "link").read_text() == "VERSION = 'two'\n"


@pytest.mark.parametrize("filters", [True, False])
@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("../out", tarfile.REGTYPE, ""),
        ("lib/../../out", tarfile.REGTYPE, ""),
        ("link", tarfile.SYMTYPE, "../.."),
        ("link", tarfile.SYMTYPE, "/etc"),
        ("link", tarfile.LNKTYPE, "../out"),
        ("pipe", tarfile.FIFOTYPE, ""),
    ],
)
def test_an_archive_that_reaches_out(
    get: Get, tmp_path: Path, request: pytest.FixtureRequest, filters: bool, name: str, kind: bytes, link: str
) -> None:
    if not filters:
        request.getfixturevalue("no_filters")
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", pax_headers={"comment": "1" * 40}) as packed:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        packed.addfile(member)
    with pytest.raises(SourceError, match="is no whole archive"):
        get(path, "1" * 40)
    assert not list(tmp_path.rglob("out")) and list((tmp_path / "cache").iterdir()) == [tmp_path / "cache" / ".lock"]


def test_what_a_killed_run_left_is_removed(checkout: Path, first: str, get: Get, tmp_path: Path) -> None:
    left = tmp_path / "cache" / f"{pinned_source.UNFINISHED}x"
    (left / "tree").mkdir(parents=True)
    (left / "tree" / "program.py").write_text("half")
    path, made = get(checkout, first)
    assert made and not left.exists() and (path / "program.py").read_text() == "VERSION = 'one'\n"


def test_two_at_once(checkout: Path, first: str, get: Get) -> None:
    made: list[bool] = []
    runs = [threading.Thread(target=lambda: made.append(get(f"file://{checkout}", first)[1])) for _ in range(4)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert sorted(made) == [False, False, False, True]


def test_a_git_of_ours_around_it_does_not_count(checkout: Path, first: str, get: Get, monkeypatch: Any) -> None:
    """A git hook has these set."""
    monkeypatch.setenv("GIT_DIR", os.devnull)
    assert get(checkout, first)[1]


LIMIT = {"file": "lib/part.py", "pattern": r"^LIMIT = \(2, 12\)$", "by": "LIMIT = (2, 13)"}


class TestPatches:
    def test_a_patched_source_is_one_of_its_own(self, checkout: Path, first: str, get: Get) -> None:
        plain, _ = get(checkout, first)
        patched, made = get(checkout, first, [LIMIT])
        assert made and patched != plain
        assert (plain / "lib" / "part.py").read_text() == "LIMIT = (2, 12)\n"
        assert (patched / "lib" / "part.py").read_text() == "LIMIT = (2, 13)\n"

    @pytest.mark.parametrize("wrong", [{"pattern": "^LIMIT = 3$"}, {"file": "lib/none.py"}])
    def test_one_that_does_not_fit(
        self, checkout: Path, first: str, get: Get, tmp_path: Path, wrong: dict[str, str]
    ) -> None:
        with pytest.raises(PatchError, match="another version"):
            get(checkout, first, [LIMIT | wrong])
        assert list((tmp_path / "cache").iterdir()) == [tmp_path / "cache" / ".lock"]


def test_a_login_is_not_told(tmp_path: Path) -> None:
    arguments = {"source": "http://me:sec@ret@127.0.0.1:1/x.git", "commit": "1" * 40, "holds": "program.py"}
    task = {"faceswap.ops.pinned_source": {**arguments, "cache": str(tmp_path / "cache")}}
    (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]))
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", str(tmp_path / "play.yml")],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(Path(pinned_source.__file__).parents[5])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and "git cannot read http://127.0.0.1:1/x.git (" in done.stdout
    assert "sec" not in done.stdout + done.stderr
