"""`weights` against a real server that cuts connections, and as a play uses it."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.faceswap.ops.plugins.action import weights as action
from ansible_collections.faceswap.ops.plugins.modules import weights

COLLECTIONS = Path(weights.__file__).parents[5]
CONTENT = {"net_v3.1.pt": os.urandom(300_000), "net_v3.2.pt": b"small"}
ARCHIVE = {"release": "v2.3", "archive": "net_v3", "files": list(CONTENT)}
NAME = "net_v3.zip"


def pack(content: dict[str, bytes]) -> bytes:
    made = BytesIO()
    with zipfile.ZipFile(made, "w") as pack:
        for name, data in content.items():
            pack.writestr(zipfile.ZipInfo(name), data)  # without today's date: the same bytes each time
    return made.getvalue()


PACKED = pack(CONTENT)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Mirror(http.server.ThreadingHTTPServer):
    """A server of files; `cut` is after how many bytes of a body each answer ends, if any."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.cut: int | None = None
        self.ranges = True
        self.errors: list[int] = []
        self.logins: set[str | None] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(http.server.BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        self.server.logins.add(self.headers.get("Authorization"))
        if self.server.errors and self.path.endswith(".zip"):
            self.send_error(self.server.errors.pop(0))
            return
        data = self.server.files.get(self.path)
        if data is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        if start and start >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start:][: self.server.cut])

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    server = Mirror()
    server.files[f"/v2.3/{NAME}"] = PACKED
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    yield server
    server.shutdown()
    serving.join()
    server.server_close()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "PAUSES_S", (0, 0))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


STATE = "weights.json"


def fetched(path: Path, source: str, remembered: dict[str, str] | None = None, **sums: str) -> weights.Weights:
    path.mkdir(exist_ok=True)
    job = weights.Weights(path, source, sums, remembered or {}, STATE)
    if job.missing(ARCHIVE):
        job.fetch(ARCHIVE)
    return job


def content(path: Path) -> dict[str, bytes]:
    """All that is there, but for the record of what was checked."""
    return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file() and file.name != weights.RECORD}


def test_the_files_are_there_and_nothing_else(mirror: Mirror, tmp_path: Path) -> None:
    job = fetched(tmp_path / "w", mirror.url)
    assert content(tmp_path / "w") == CONTENT
    assert job.fetched == {NAME: digest(PACKED)} | {name: digest(data) for name, data in CONTENT.items()}
    mirror.asked.clear()
    fetched(tmp_path / "w", mirror.url)
    assert mirror.asked == []


def test_a_cut_download_goes_on_where_it_stopped(mirror: Mirror, tmp_path: Path) -> None:
    mirror.cut = 100_000
    fetched(tmp_path / "w", mirror.url)
    assert content(tmp_path / "w") == CONTENT
    starts = [wanted for path, wanted in mirror.asked if path.endswith(".zip")]
    assert starts == [None, "bytes=100000-", "bytes=200000-", "bytes=300000-"]


def test_a_later_run_goes_on_too(mirror: Mirror, tmp_path: Path) -> None:
    mirror.cut = 100_000
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / f".{NAME}.part").write_bytes(PACKED[:1000])
    mirror.errors = [503, 503, 503]
    with pytest.raises(weights.WeightsError, match=r"cannot be fetched \(HTTP 503\): see to this host's network"):
        fetched(tmp_path / "w", mirror.url)
    assert [path.name for path in (tmp_path / "w").iterdir()] == [f".{NAME}.part"]
    mirror.cut = None
    fetched(tmp_path / "w", mirror.url)
    assert content(tmp_path / "w") == CONTENT and mirror.asked[-2][1] == "bytes=1000-"


def test_a_server_without_ranges(mirror: Mirror, tmp_path: Path) -> None:
    mirror.ranges = False
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / f".{NAME}.part").write_bytes(PACKED[:1000])
    job = fetched(tmp_path / "w", mirror.url)
    assert content(tmp_path / "w") == CONTENT and job.fetched[NAME] == digest(PACKED)


def test_a_part_that_is_longer_than_the_whole(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / f".{NAME}.part").write_bytes(PACKED + b"more")
    fetched(tmp_path / "w", mirror.url)
    assert content(tmp_path / "w") == CONTENT


def test_what_the_mirror_lacks(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files.clear()
    with pytest.raises(
        weights.WeightsError, match=rf"{NAME} cannot be had \(HTTP 404\): see the source of the weights"
    ):
        fetched(tmp_path / "w", mirror.url)


def test_a_mirror_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(weights.WeightsError, match=r"cannot be fetched \(.*refused.*\): see to this host's network"):
        fetched(tmp_path / "w", "http://127.0.0.1:1")


WRONG = digest(b"something else")


@pytest.mark.parametrize("name", [NAME, "net_v3.2.pt"])
@pytest.mark.parametrize("told_by", ["us", "the mirror"])
def test_another_checksum_is_not_used(mirror: Mirror, tmp_path: Path, name: str, told_by: str) -> None:
    if told_by == "the mirror":
        mirror.files["/SHA256SUMS"] = f"{WRONG}  v2.3/{name}\n".encode()
    with pytest.raises(weights.WeightsError) as told:
        fetched(tmp_path / "w", mirror.url, **({name: WRONG} if told_by == "us" else {}))
    assert str(told.value).startswith(f"{name} from {mirror.url} has the checksum ")
    assert f"and should have {WRONG[:12]}...: it is not used" in str(told.value)
    left = content(tmp_path / "w")
    assert not {name, f".{NAME}.part", f".{name}.new"} & set(left)
    # Nor by the next run.
    with pytest.raises(weights.WeightsError):
        fetched(tmp_path / "w", mirror.url, **({name: WRONG} if told_by == "us" else {}))


def test_the_right_checksum_is(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["/SHA256SUMS"] = f"{digest(PACKED).upper()} *v2.3/{NAME}\n".encode()
    fetched(tmp_path / "w", mirror.url, **{NAME: digest(PACKED)})
    assert content(tmp_path / "w") == CONTENT


def test_what_the_mirror_vouches_for_wins_over_what_is_remembered(mirror: Mirror, tmp_path: Path) -> None:
    old = {NAME: WRONG, "net_v3.1.pt": WRONG}
    with pytest.raises(weights.WeightsError, match=rf"if it is the right one, remove {NAME} from {STATE} on the con"):
        fetched(tmp_path / "w", mirror.url, old)
    rows = [f"{digest(data)} {name}\n" for name, data in {NAME: PACKED, **CONTENT}.items()]
    mirror.files["/SHA256SUMS"] = "".join(rows[:2]).encode()
    job = fetched(tmp_path / "w", mirror.url, old)
    assert content(tmp_path / "w") == CONTENT and job.told()["vouched"] == ["net_v3.1.pt", NAME]


@pytest.mark.parametrize("name", [NAME, "net_v3.2.pt"])
def test_what_is_known_later_counts_for_what_is_there(mirror: Mirror, tmp_path: Path, name: str) -> None:
    good = pack(CONTENT | {"net_v3.2.pt": b"good"})
    fetched(tmp_path / "w", mirror.url)
    known = {name: digest(good if name == NAME else b"good")}
    with pytest.raises(weights.WeightsError):
        fetched(tmp_path / "w", mirror.url, **known)
    assert "net_v3.2.pt" not in content(tmp_path / "w")
    mirror.files[f"/v2.3/{NAME}"] = good
    fetched(tmp_path / "w", mirror.url, **known)
    assert content(tmp_path / "w") == CONTENT | {"net_v3.2.pt": b"good"}
    assert not fetched(tmp_path / "w", mirror.url, **known).fetched


def test_what_nobody_checked_is_fetched(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    for name in CONTENT:
        (tmp_path / "w" / name).write_bytes(b"who knows")
    assert set(fetched(tmp_path / "w", mirror.url).fetched) == {NAME, *CONTENT}
    assert content(tmp_path / "w") == CONTENT


def test_a_login_is_told_to_the_server_and_to_nobody_else(mirror: Mirror, tmp_path: Path) -> None:
    url = mirror.url.replace("://", "://me:sec%40ret@")
    fetched(tmp_path / "w", url)
    assert mirror.logins == {"Basic bWU6c2VjQHJldA=="}
    mirror.files.clear()
    with pytest.raises(weights.WeightsError) as told:
        fetched(tmp_path / "other", url)
    assert str(told.value).startswith(f"{mirror.url}/v2.3/{NAME} cannot be had")


def spoilt(flags: int, method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive that says of itself that it is encrypted, or that is damaged within."""
    made = BytesIO()
    with zipfile.ZipFile(made, "w", method) as pack:
        for name in CONTENT:
            pack.writestr(zipfile.ZipInfo(name), bytes(1000), method)
    data = bytearray(made.getvalue())
    if method == zipfile.ZIP_DEFLATED:
        start = 30 + len("net_v3.1.pt")
        data[start : start + 2] = b"\xff\xff"
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= flags
    return bytes(data)


DAMAGED = [b"<html>a page for people</html>", PACKED[:-30], pack({"other.pt": b""}), spoilt(1)]


@pytest.mark.parametrize("data", [*DAMAGED, spoilt(0, zipfile.ZIP_DEFLATED)])
def test_what_is_no_such_archive(mirror: Mirror, tmp_path: Path, data: bytes) -> None:
    mirror.files[f"/v2.3/{NAME}"] = data
    with pytest.raises(
        weights.WeightsError, match=rf"^{NAME} from .* is no archive with net_v3.1.pt and net_v3.2.pt"
    ):
        fetched(tmp_path / "w", mirror.url)
    assert content(tmp_path / "w") == {}


class TestInAPlay:
    """Both halves, on a host that is this machine."""

    @pytest.fixture
    def play(self, tmp_path: Path) -> Any:
        def play(source: str, *words: str, host: str = "engine", **more: Any) -> tuple[int, str, bool]:
            values = {
                "path": str(tmp_path / host / "weights"),
                "link": str(tmp_path / host / ".fs_cache"),
                "archives": [ARCHIVE],
                "source": source,
                "state": str(tmp_path / "state" / "weights.json"),
                **more,
            }
            (tmp_path / host).mkdir(exist_ok=True)
            tasks = [{"faceswap.ops.weights": values}]
            (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
            done = subprocess.run(
                [
                    str(Path(sys.executable).parent / "ansible-playbook"),
                    *("-i", "here,", "-c", "local", "-e", json.dumps({"ansible_python_interpreter": sys.executable})),
                    *words,
                    str(tmp_path / "play.yml"),
                ],
                env={
                    **os.environ,
                    "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
                    "ANSIBLE_NOCOLOR": "1",
                    "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
                },
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
            return done.returncode, done.stdout, "changed=1" in done.stdout

        return play

    def test_made_once_and_what_it_got_is_remembered(self, mirror: Mirror, tmp_path: Path, play: Any) -> None:
        assert play(mirror.url, "--check")[::2] == (0, True) and not (tmp_path / "engine" / "weights").exists()
        code, said, changed = play(mirror.url)
        assert (code, changed) == (0, True), said
        assert content(tmp_path / "engine" / ".fs_cache") == CONTENT
        assert play(mirror.url)[::2] == (0, False)
        known = json.loads((tmp_path / "state" / "weights.json").read_text())
        assert known[NAME] == digest(PACKED) and set(known) == {NAME, *CONTENT}

    def test_what_is_no_archive_is_not_remembered(self, mirror: Mirror, tmp_path: Path, play: Any) -> None:
        mirror.files[f"/v2.3/{NAME}"] = b"<html>a page for people</html>"
        code, said, _ = play(mirror.url)
        assert code == 2 and "is no archive with" in said and not (tmp_path / "state" / "weights.json").exists()
        mirror.files[f"/v2.3/{NAME}"] = PACKED
        code, said, changed = play(mirror.url)
        assert (code, changed) == (0, True), said

    def test_what_is_vouched_for_takes_the_place_of_what_is_remembered(
        self, mirror: Mirror, tmp_path: Path, play: Any
    ) -> None:
        state = tmp_path / "state" / "weights.json"
        state.parent.mkdir()
        state.write_text(json.dumps({NAME: WRONG}))
        code, said, _ = play(mirror.url)
        assert code == 2 and f"remove {NAME} from {state} on the controller" in said
        mirror.files["/SHA256SUMS"] = f"{digest(PACKED)} {NAME}\n".encode()
        assert play(mirror.url)[::2] == (0, True)
        assert json.loads(state.read_text())[NAME] == digest(PACKED)
        assert play(mirror.url)[::2] == (0, False)

    def test_the_next_host_must_get_the_same(self, mirror: Mirror, tmp_path: Path, play: Any) -> None:
        assert play(mirror.url)[0] == 0
        mirror.files[f"/v2.3/{NAME}"] = pack(CONTENT | {"net_v3.2.pt": b"other"})
        code, said, _ = play(mirror.url, host="second")
        assert code == 2 and f"{NAME} from {mirror.url} has the checksum" in said
        assert content(tmp_path / "second" / "weights") == {}
        mirror.files[f"/v2.3/{NAME}"] = PACKED
        assert play(mirror.url, host="second")[0] == 0

    @pytest.mark.parametrize("form", ["archives", "as a mirror has them", "files"])
    def test_from_a_folder_on_the_controller(self, tmp_path: Path, play: Any, form: str) -> None:
        folder = tmp_path / "brought"
        (folder / "v2.3").mkdir(parents=True)
        if form == "files":
            for name, data in CONTENT.items():
                (folder / name).write_bytes(data)
        else:
            (folder / ("" if form == "archives" else "v2.3") / NAME).write_bytes(PACKED)
        if form == "files":
            assert play(str(folder), "--check")[::2] == (0, True) and not (tmp_path / "engine" / "weights").exists()
        code, said, changed = play(str(folder))
        assert (code, changed) == (0, True), said
        there = tmp_path / "engine" / "weights"
        assert content(there) == CONTENT
        assert play(str(folder))[::2] == (0, False)

    def test_a_folders_own_sums_count(self, tmp_path: Path, play: Any) -> None:
        folder = tmp_path / "brought"
        folder.mkdir()
        (folder / NAME).write_bytes(PACKED)
        (folder / "SHA256SUMS").write_text(f"{WRONG}  {NAME}\n")
        code, said, _ = play(str(folder))
        assert code == 2 and f"{NAME} from " in said and "it is not used" in said

    @pytest.mark.parametrize("there", [False, True])
    def test_a_folder_without_it(self, tmp_path: Path, play: Any, there: bool) -> None:
        folder = tmp_path / "brought"
        if there:
            folder.mkdir()
            (folder / "net_v3.1.pt").touch()  # the other one is missing
        code, said, _ = play(str(folder))
        wanted = f"{folder} has neither {NAME} nor net_v3.1.pt and net_v3.2.pt" if there else "There is no folder "
        assert code == 2 and wanted in said


def test_two_hosts_that_get_different_things_at_once(tmp_path: Path) -> None:
    state = tmp_path / "weights.json"
    action.remember(state, {NAME: "0" * 64})
    action.remember(state, {"other.zip": "1" * 64})
    with pytest.raises(AnsibleActionFail, match=rf"^{NAME} came with the checksum 2222.* and with 0000.* to another"):
        action.remember(state, {NAME: "2" * 64})
    assert action.remembered(state) == {NAME: "0" * 64, "other.zip": "1" * 64}
    action.remember(state, {NAME: "2" * 64}, [NAME])
    assert action.remembered(state)[NAME] == "2" * 64
