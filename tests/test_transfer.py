"""faceswap.ops.transfer over a real sshd on loopback, through a line that can be slow, cut and counted."""

import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import waiting
from ansible.errors import AnsibleActionFail
from ansible_collections.faceswap.ops.plugins.action import transfer
from ansible_collections.faceswap.ops.plugins.plugin_utils import transfer_end
from ssh_loopback import SSHD, SshHost, below, ssh_host

ROOT = Path(__file__).parent.parent
Json = dict[str, Any]
MB = 1 << 20
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
needs_sudo = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("sudo"), reason="needs root and sudo")


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshHost]:
    if not SSHD:
        pytest.skip("needs sshd (openssh-server)")
    with ssh_host(tmp_path_factory.mktemp("ssh")) as host:
        yield host


@pytest.fixture(autouse=True)
def _fast_line(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "box" in request.fixturenames:
        line = request.getfixturevalue("box").line
        line.rate, line.open = 0, True


class Play:
    """A playbook of transfers on host `box`, under way; `results` waits for its end."""

    def __init__(self, folder: Path, inventory: Path, tasks: list[Json], *flags: str) -> None:
        keywords = ("become", "become_user", "vars")
        book = folder / "play.yml"
        rows = [
            {"ignore_errors": True, "faceswap.ops.transfer": {k: v for k, v in task.items() if k not in keywords}}
            | {k: v for k, v in task.items() if k in keywords}
            for task in tasks
        ]
        book.write_text(json.dumps([{"hosts": "box", "gather_facts": False, "tasks": rows}]))
        program = Path(sys.executable).with_name("ansible-playbook")
        self.process = subprocess.Popen(
            [program, "-v", "-i", inventory, book, *flags],
            env=os.environ
            | {
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
                "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
                "ANSIBLE_CALLBACK_FORMAT_PRETTY": "false",
                "ANSIBLE_NOCOLOR": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.said = ""

    def results(self) -> list[Json]:
        """The result of each task; a failed one has `msg`."""
        self.said, _ = self.process.communicate(timeout=120)
        found = re.findall(
            r"^(?:ok|changed|fatal): \[box\](?:: (?:FAILED|UNREACHABLE)!)? => (\{.*\})$", self.said, re.M
        )
        return [json.loads(text) for text in found]

    def kill(self) -> None:
        """As a controller that loses its power: nothing is closed, nobody is told."""
        for pid in [self.process.pid, *below(self.process.pid)]:  # its workers have sessions of their own
            os.kill(pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def play(box: SshHost, tmp_path: Path) -> Callable[..., list[Json]]:
    def run(*tasks: Json, flags: tuple[str, ...] = ()) -> list[Json]:
        playing = Play(tmp_path, box.inventory, list(tasks), *flags)
        results = playing.results()
        assert len(results) == len(tasks), playing.said
        return results

    return run


wait_until = partial(waiting.wait_until, seconds=60)


def content(folder: Path) -> dict[str, bytes | None]:
    """All below a folder: files with their bytes, folders with None."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def part_of(target: Path, data: bytes) -> Path:
    return target.with_name(f".{target.name}.{hashlib.sha256(data).hexdigest()[:16]}.part")


def make_tree(folder: Path, files: int = 0) -> Path:
    (folder / "empty folder" / "in it").mkdir(parents=True)
    (folder / "Gesichter für später").mkdir()
    (folder / "Gesichter für später" / "ä ' \" $HOME *.png").write_bytes(os.urandom(3000))
    (folder / "empty.txt").touch()
    (folder / ("n" * 250)).write_text("a long name")
    for number in range(files):
        (folder / f"{number:05}.png").write_bytes(os.urandom(200))
    return folder


def test_files_and_folders_go_up_and_down_whole(play: Callable[..., list[Json]], tmp_path: Path) -> None:
    tree, big = make_tree(tmp_path / "tree", files=transfer.FILES_MAX + 20), tmp_path / "my clip.mp4"
    big.write_bytes(os.urandom(9 * MB + 7))
    far, back = tmp_path / "far", tmp_path / "back"
    up = {"src": str(big), "dest": str(far / "new" / "clip.mp4"), "mode": "0640"}
    down = {"src": up["dest"], "dest": str(back / "clip.mp4"), "to": "controller"}
    tree_up = {"src": f"{tree}/", "dest": str(far / "tree")}
    tree_down = {"src": str(far / "tree"), "dest": str(back / "tree"), "to": "controller"}
    results = play(up, up, down, down, tree_up, tree_up, tree_down, tree_down)
    assert [result.get("changed") for result in results] == [True, False] * 4, results
    assert (far / "new" / "clip.mp4").read_bytes() == (back / "clip.mp4").read_bytes() == big.read_bytes()
    assert {result["checksum"] for result in results[:4]} == {hashlib.sha256(big.read_bytes()).hexdigest()}
    assert [result["bytes_sent"] for result in results[:4]] == [9 * MB + 7, 0] * 2
    assert content(far / "tree") == content(back / "tree") == content(tree)
    assert len({result["checksum"] for result in results[4:]}) == 1
    assert results[4]["files"] == transfer.FILES_MAX + 23
    assert oct((far / "new" / "clip.mp4").stat().st_mode) == "0o100640"
    assert oct((far / "new").stat().st_mode) == "0o40750"
    assert oct((far / "tree" / "empty.txt").stat().st_mode) == "0o100644"
    assert not list(tmp_path.rglob("*.part"))


def test_what_is_unchanged_takes_one_round_trip(box: SshHost, tmp_path: Path) -> None:
    tree, dest = make_tree(tmp_path / "tree"), tmp_path / "dest"
    shutil.copytree(tree, dest)
    for path in dest.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    playing = Play(tmp_path, box.inventory, [{"src": str(tree), "dest": str(dest)}], "-vvv")
    playing.results()
    assert playing.said.count("SSH: EXEC") == 1, playing.said
    assert re.search(r"ok=1 .*changed=0 .*failed=0 .*ignored=0", playing.said), playing.said


def test_a_folder_is_mirrored_and_check_and_diff_tell_so_before(
    box: SshHost, play: Callable[..., list[Json]], tmp_path: Path
) -> None:
    tree, dest = make_tree(tmp_path / "tree"), tmp_path / "dest"
    shutil.copytree(tree, dest)
    (dest / "old" / "__pycache__").mkdir(parents=True)
    (dest / "old" / "file").write_text("x")
    (dest / "empty.txt").unlink()
    (dest / "empty.txt").mkdir()  # a folder in a file's place
    (dest / "link").symlink_to("/etc/hostname")
    (dest / ".gone.0123456789abcdef.part").write_text("of an older try")
    for folder in (tree, dest):
        (folder / "__pycache__").mkdir()
        (folder / "__pycache__" / folder.name).touch()
    (tree / "mode").write_text("m")
    (dest / "mode").write_text("m")
    (dest / "mode").chmod(0o600)
    before = content(dest)
    task: Json = {"src": str(tree), "dest": str(dest), "exclude": ["__pycache__"]}
    # Nobody's own files are touched unless that is asked for.
    (refused,) = Play(tmp_path, box.inventory, [task]).results()
    assert "empty.txt" in refused["msg"] and "move it away" in refused["msg"]
    task["mirror"] = True
    checking = Play(tmp_path, box.inventory, [task], "--check", "--diff")
    (told,) = checking.results()
    assert told["changed"] and content(dest) == before
    lines = set(checking.said.splitlines())
    assert {"send empty.txt", "remove old", "remove empty.txt", "remove link", "change the mode of mode"} <= lines, (
        lines
    )
    done, again = play(task, task)
    assert (done["changed"], again["changed"]) == (True, False)
    assert Path("/etc/hostname").exists() and (dest / "__pycache__" / "dest").exists()
    shutil.rmtree(tree / "__pycache__")
    shutil.rmtree(dest / "__pycache__")
    assert content(dest) == content(tree)


def test_a_folder_of_others_is_no_mirror(play: Callable[..., list[Json]], tmp_path: Path) -> None:
    """As /usr/bin, with `faceswap_run_dir: /usr`."""
    tree, theirs, ours = make_tree(tmp_path / "tree"), tmp_path / "bin", tmp_path / "ours"
    theirs.mkdir()
    (theirs / "ls").write_text("a program")
    (theirs / "sh").symlink_to("ls")
    ours.mkdir()
    part_of(ours / "gone", b"of a killed run").touch()
    (ours / "old").write_text("x")
    before = content(theirs)
    task = {"src": str(tree), "dest": str(theirs), "mirror": True}
    (refused,) = play(task)
    assert re.fullmatch(r".*/bin on box has nothing of what .* would lose ls and all .*: take .*\.", refused["msg"])
    assert content(theirs) == before
    play({**task, "clear": True}, {**task, "dest": str(ours)})
    assert content(theirs) == content(ours) == content(tree)


def test_what_the_source_does_not_have_stays_unless_told_otherwise(
    play: Callable[..., list[Json]], tmp_path: Path
) -> None:
    tree, dest = make_tree(tmp_path / "tree"), tmp_path / "dest"
    (dest / "of a user").mkdir(parents=True)
    (dest / "of a user" / "note").write_text("mine")
    task = {"src": str(tree), "dest": str(dest)}
    done, again = play(task, task)
    assert (done["changed"], again["changed"]) == (True, False)
    assert (dest / "of a user" / "note").read_text() == "mine"
    assert content(tree).items() <= content(dest).items()


def test_a_long_diff_is_cut(box: SshHost, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", files=50)
    checking = Play(tmp_path, box.inventory, [{"src": str(tree), "dest": f"{tmp_path}/dest"}], "--check", "--diff")
    checking.results()
    assert len(re.findall(r"^(?:send|make) ", checking.said, re.M)) == transfer.DIFF_LINES
    assert re.search(r"^and 36 more$", checking.said, re.M), checking.said
    assert not (tmp_path / "dest").exists()


@pytest.mark.parametrize("to", ["host", "controller"])
def test_a_cut_connection_is_taken_up_again_where_it_was(box: SshHost, tmp_path: Path, to: str) -> None:
    src, dest = tmp_path / "clip.mp4", tmp_path / "dest.mp4"
    src.write_bytes(os.urandom(14 * MB))
    box.line.rate = 8 * MB
    way = "up" if to == "host" else "down"
    start = getattr(box.line, way)
    playing = Play(tmp_path, box.inventory, [{"src": str(src), "dest": str(dest), "to": to}])
    wait_until(lambda: getattr(box.line, way) - start > 9 * MB)
    assert box.kill_sessions()
    (result,) = playing.results()
    assert result["changed"], playing.said
    assert dest.read_bytes() == src.read_bytes()
    assert "the connection was lost, trying again" in playing.said
    coded = 1 if to == "host" else 4 / 3
    assert getattr(box.line, way) - start < coded * (14 + 6) * MB  # at most what was on its way came twice


@pytest.mark.parametrize("to", ["host", "controller"])
def test_the_next_run_goes_on_where_a_killed_one_stopped(box: SshHost, tmp_path: Path, to: str) -> None:
    src, dest = tmp_path / "clip.mp4", tmp_path / "dest.mp4"
    src.write_bytes(os.urandom(14 * MB))
    part = part_of(dest, src.read_bytes())
    task = {"src": str(src), "dest": str(dest), "to": to}
    box.line.rate = 8 * MB
    playing = Play(tmp_path, box.inventory, [task])
    wait_until(lambda: part.exists() and part.stat().st_size > 3 * MB)
    playing.kill()
    box.line.cut()
    wait_until(lambda: not [pid for pid in below(box.process.pid) if "python3" in command_of(pid)])
    kept = part.stat().st_size
    assert kept < 14 * MB and not dest.exists()
    box.line.rate = 0
    (result,) = Play(tmp_path, box.inventory, [task]).results()
    assert result["bytes_sent"] == 14 * MB - kept
    assert dest.read_bytes() == src.read_bytes() and not part.exists()


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def test_a_host_that_does_not_come_back_is_unreachable_in_one_sentence(box: SshHost, tmp_path: Path) -> None:
    src = tmp_path / "clip.mp4"
    src.write_bytes(os.urandom(14 * MB))
    box.line.rate = 8 * MB
    start = box.line.up
    task = {"src": str(src), "dest": str(tmp_path / "dest.mp4"), "patience_s": 2}
    playing = Play(tmp_path, box.inventory, [task])
    wait_until(lambda: box.line.up - start > 5 * MB)
    box.line.open = False
    box.line.cut()
    (result,) = playing.results()
    assert result["unreachable"] and playing.process.returncode == 4, playing.said
    assert re.match(
        r"The connection to box was lost and did not come back within 2 s \(.*\)\. Run the same command",
        result["msg"],
    )


def test_a_part_with_wrong_bytes_is_healed(play: Callable[..., list[Json]], tmp_path: Path) -> None:
    src, up, down = tmp_path / "clip.mp4", tmp_path / "up.mp4", tmp_path / "down.mp4"
    src.write_bytes(os.urandom(MB))
    for dest in (up, down):
        part_of(dest, src.read_bytes()).write_bytes(b"wrong" * 1000)
    play({"src": str(src), "dest": str(up)}, {"src": str(src), "dest": str(down), "to": "controller"})
    assert up.read_bytes() == down.read_bytes() == src.read_bytes()
    assert not list(tmp_path.glob(".*.part"))


def test_what_a_user_can_do_wrong_is_said_in_a_sentence(play: Callable[..., list[Json]], tmp_path: Path) -> None:
    file, folder, outside = tmp_path / "file", make_tree(tmp_path / "folder"), tmp_path / "outside"
    file.write_text("x")
    (tmp_path / "linked").mkdir()
    outside.write_text("secret")
    (tmp_path / "linked" / "out").symlink_to(outside)
    cases = {
        ("nothing", "d1", "host"): r"There is no .*nothing on the controller: see `src`\.",
        ("nothing", "d2", "controller"): r"There is no .*nothing on box: see `src`\.",
        (
            "file",
            "folder",
            "host",
        ): r".*folder on box is a folder, but a file is to be sent there: give another `dest`\.",
        ("folder", "file", "controller"): r".*file on the controller is a file, but a folder is to be sent there: .*",
        ("linked", "d3", "host"): r".*linked/out on the controller cannot be sent: only files, folders, and links .*",
        ("linked", "d4", "controller"): r".*linked/out on box cannot be sent: .*",
    }
    tasks: list[Json] = [
        {"src": f"{tmp_path}/{src}", "dest": f"{tmp_path}/{dest}", "to": to} for src, dest, to in cases
    ]
    tasks += [
        {"src": str(file), "dest": "relative"},
        {"src": str(folder), "dest": "/etc", "mirror": True},
        {"src": str(file), "dest": f"{tmp_path}/d5", "mode": "rw"},
    ]
    sentences = [
        *cases.values(),
        r"The path relative on box must be absolute\.",
        r"/etc on box would lose .*",
        r".*rw.* no mode .*",
    ]
    for result, sentence in zip(play(*tasks), sentences, strict=True):
        assert re.fullmatch(sentence, result["msg"]), result
    assert content(folder) == content(make_tree(tmp_path / "other")) or file.read_text() == "x"
    assert not list(tmp_path.glob("d?"))


@needs_sudo
def test_any_become_user_serves(play: Callable[..., list[Json]], tmp_path: Path) -> None:
    src = make_tree(tmp_path / "tree")
    home = Path("/var/tmp") / f"transfer-{os.getpid()}"  # tmp_path is closed to others
    home.mkdir()
    try:
        home.chmod(0o700)
        shutil.chown(home, "nobody")
        become = {"become": True, "become_user": "nobody"}
        up, down, denied = play(
            {"src": str(src), "dest": f"{home}/tree", **become},
            {"src": f"{home}/tree", "dest": f"{tmp_path}/back", "to": "controller", **become},
            {"src": str(src), "dest": "/etc/transfer test/tree", **become},
        )
        assert up["changed"] and down["changed"] and content(tmp_path / "back") == content(src)
        assert {path.owner() for path in (home / "tree").rglob("*")} == {"nobody"}
        assert re.match(r"No permission for /etc/transfer test on box as nobody: ", denied["msg"])
    finally:
        shutil.rmtree(home)


@needs_root
def test_a_full_disk_is_named_and_the_next_run_goes_on(play: Callable[..., list[Json]], tmp_path: Path) -> None:
    src, disk = tmp_path / "clip.mp4", tmp_path / "disk"
    src.write_bytes(os.urandom(9 * MB))
    disk.mkdir()
    tried = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", disk], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no tmpfs can be mounted here ({tried.stderr.strip()})")
    try:
        tasks = [{"src": str(src), "dest": str(disk / "d"), "to": to} for to in ("host", "controller")]
        for result, where in zip(play(*tasks), ("box", "the controller"), strict=True):
            assert re.fullmatch(
                rf"The disk of {where} is too full for {disk}/d: 8\.4 MB are free, 9\.4 MB are still to come\. "
                r"Make room there and run the same command again: it goes on where it stopped\.",
                result["msg"],
            ), result
        assert not list(disk.iterdir())
        # One that fills up while it is written: what stands of a file is kept for the next run.
        digest = hashlib.sha256(src.read_bytes()).hexdigest()
        order: Json = {"do": "write", "root": str(disk / "d"), "kind": "file", "mode": None, "where": "box"}
        order |= {
            "need": 9 * MB,
            "remove": [],
            "folders": [],
            "modes": [],
            "slices": [["", digest, 9 * MB, 0, 9 * MB]],
        }
        reply, _ = transfer_end.answer(order, io.BytesIO(src.read_bytes()))
        assert "0.0 MB are free, 9.4 MB are still to come" in reply["error"]
        subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
        (result,) = play(tasks[0])
        assert result["bytes_sent"] == MB and (disk / "d").read_bytes() == src.read_bytes()
    finally:
        subprocess.run(["umount", disk], check=True)


def test_on_this_machine_it_copies_and_never_into_itself(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("all:\n  hosts:\n    box:\n      ansible_connection: local\n")
    tree = make_tree(tmp_path / "tree")
    tasks = [
        {"src": str(tree), "dest": str(tmp_path / "copy")},
        {"src": str(tree), "dest": str(tree / "empty folder" / "in it")},
        {"src": str(tree), "dest": str(tmp_path)},
    ]
    copied, *nested = Play(tmp_path, inventory, tasks).results()
    assert copied["changed"] and content(tmp_path / "copy") == content(tree)
    assert all("lies in the other" in result["msg"] for result in nested)


def test_check_mode_survives_what_earlier_tasks_would_have_made(
    play: Callable[..., list[Json]], tmp_path: Path
) -> None:
    results = play({"src": f"{tmp_path}/later", "dest": f"{tmp_path}/d", "to": "controller"}, flags=("--check",))
    assert results[0]["changed"] and results[0]["msg"] == f"{tmp_path}/later is not on box yet."


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a//b", "", "nul\0"])
def test_a_host_cannot_name_a_file_elsewhere(name: str) -> None:
    class Hostile:
        name = "box"

        def ask(self, order: Json, data: bytes = b"") -> tuple[Json, bytes]:
            return {"kind": "folder", "files": {name: [1, "0" * 64]}, "folders": []}, b""

    line: Any = None
    moving = transfer.Transfer(
        Hostile(), transfer.Controller(), "/s", "/d/e", None, [], False, False, 1, MB, line, lambda: None
    )
    with pytest.raises(AnsibleActionFail, match="nothing is taken from it"):
        moving.run(check=False, diff=False)


def test_a_source_that_never_rests_is_named(tmp_path: Path) -> None:
    class Restless(transfer.Controller):
        reads = 0

        def ask(self, order: Json, data: bytes = b"") -> tuple[Json, bytes]:
            if order["do"] == "read":
                self.reads += 1
                assert self.reads < 5, "it would go on for ever"
                (tmp_path / "log").write_bytes(os.urandom(1000))
            return super().ask(order, data)

    (tmp_path / "log").write_bytes(os.urandom(1000))
    line: Any = None
    dest = str(tmp_path / "to" / "log")
    moving = transfer.Transfer(
        Restless(),
        transfer.Controller(),
        str(tmp_path / "log"),
        dest,
        None,
        [],
        False,
        False,
        1,
        MB,
        line,
        lambda: None,
    )
    with pytest.raises(AnsibleActionFail, match="log arrived twice with another content than it was sent with"):
        moving.run(check=False, diff=False)
    assert not list((tmp_path / "to").iterdir())
