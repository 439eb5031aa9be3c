import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.faceswap.ops.plugins.module_utils import audit_log
from ansible_collections.faceswap.ops.plugins.module_utils.audit_log import AuditError, Findings, append

COLLECTIONS = Path(__file__).resolve().parents[5]
LINES = 6


class Killed(BaseException):
    """What stands for the end of the process: nothing in the code can take it."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("state") / "audit"
    for number in range(1, LINES + 1):
        append(an_entry(number), folder)
    return folder


@pytest.fixture
def log(written: Path, tmp_path: Path) -> Path:
    """A log of six lines, to be broken."""
    shutil.copytree(written, tmp_path / "audit")
    return tmp_path / "audit"


def an_entry(number: int) -> dict[str, Any]:
    return {
        "host": "here",
        "event": "done",
        "stage": "train",
        "job": f"job{number}",
        "consents": {"a": {"id": "consent-1", "digest": "1" * 64}, "b": {"id": "consent-2", "digest": "2" * 64}},
        "inputs": {"faces_a": "3" * 64},
        "settings": {"iterations": number, "label": "généré"},
    }


def seen(folder: Path) -> Findings:
    findings = audit_log.verify(folder)
    assert findings is not None
    return findings


def good(folder: Path) -> list[str]:
    """The jobs in a log that is as it should be."""
    findings = seen(folder)
    assert findings.sentences == []
    assert findings.count == len(findings.entries)
    return [entry["job"] for entry in findings.entries]


def lines_of(folder: Path) -> list[str]:
    return (folder / "log.jsonl").read_text().splitlines(keepends=True)


def put(folder: Path, lines: list[str]) -> None:
    (folder / "log.jsonl").write_text("".join(lines))


def with_its_hash(line: dict[str, Any]) -> str:
    """A line of somebody who knows how a line is made."""
    line = {name: line[name] for name in line if name != "hash"}
    return audit_log._text({**line, "hash": audit_log._hash(line)})


# --- what is written ---------------------------------------------------------------------------------------


def test_an_end_is_known_if_the_last_line_of_its_stage_says_the_same(log: Path) -> None:
    entry = an_entry(LINES) | {"outputs": {"model": "4" * 64}}
    assert audit_log.knows(an_entry(2), log) and not audit_log.knows(entry, log)
    append(entry, log)
    assert audit_log.knows(entry, log) and not audit_log.knows(an_entry(LINES), log)
    append(entry | {"event": "failed"}, log)
    assert audit_log.knows(entry, log), "a failure between leaves what was made"
    for other in ("host", "job", "stage"):
        append(entry | {other: "another", "outputs": {}}, log)
        assert not audit_log.knows(entry | {other: "third"}, log)
    assert audit_log.knows(entry, log)
    assert not audit_log.knows(entry, log / "nowhere")


def test_only_a_whole_log_tells_what_was_released_here(log: Path, tmp_path: Path) -> None:
    right = audit_log.append({"event": "released", "outputs": {"/x": "1" * 64}}, log)
    other = audit_log.append({"event": "quarantined", "outputs": {"/x": "2" * 64}}, log)
    assert audit_log.has_released(right, "1" * 64, log)
    for line, digest in ((right, "2" * 64), (other, "2" * 64), ("0" * 64, "1" * 64)):
        assert not audit_log.has_released(line, digest, log)
    assert not audit_log.has_released(right, "1" * 64, tmp_path / "none")
    put(log, lines_of(log)[:-1])
    assert not audit_log.has_released(right, "1" * 64, log)
    (log / "lock").unlink()
    assert not audit_log.has_released(right, "1" * 64, log)


def test_an_entry_says_who_when_and_what(tmp_path: Path) -> None:
    made = append(an_entry(1), tmp_path / "state" / "audit")
    [line] = seen(tmp_path / "state" / "audit").entries
    assert line["hash"] == made
    assert an_entry(1).items() <= line.items()
    assert (line["n"], line["event"], line["code"], line["message"]) == (1, "done", 0, "")
    assert line["who"]
    assert line["time"].endswith("Z")
    assert line["commit"] == audit_log.commit()


def test_nobody_else_can_read_it(written: Path) -> None:
    assert written.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in written.iterdir() if path.suffix != ".pub"} == {0}


def test_the_place_of_the_log_does_not_hang_on_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = audit_log.audit_folder()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert audit_log.audit_folder() == place


def test_a_program_of_ones_own_in_the_path_signs_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ssh-keygen", "git"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch '{tmp_path}/was-run'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    append(an_entry(1), tmp_path / "audit")
    assert good(tmp_path / "audit") == ["job1"]
    assert not (tmp_path / "was-run").exists()


def test_values_that_json_does_not_know_are_written_as_text(tmp_path: Path) -> None:
    append({"settings": {10: Path("/a"), 9: float("nan"), 100: "\ud800\n\x00"}}, tmp_path / "audit")
    assert good(tmp_path / "audit") == [""]


def test_a_field_that_nobody_would_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="no field 'hash'"):
        append({"hash": "0"}, tmp_path / "audit")


def test_no_log_is_not_a_broken_one(tmp_path: Path) -> None:
    assert audit_log.verify(tmp_path / "audit") is None


def test_the_commit_is_that_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "clone/collections/ansible_collections/faceswap/ops/plugins/module_utils/audit_log.py"
    file.parent.mkdir(parents=True)
    file.write_text("x")
    monkeypatch.setattr(audit_log, "__file__", str(file))
    assert audit_log.commit() == ""
    root = tmp_path / "clone"
    (root / "roles" / "faceswap_run").mkdir(parents=True)
    assert audit_log.commit() == ""
    who = ["-c", "user.name=x", "-c", "user.email=x@x.invalid"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "x"]):
        subprocess.run(["git", "-C", str(root), *words], check=True)
    name = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert audit_log.commit() == name
    file.write_text("y")
    assert audit_log.commit() == f"{name} changed"


# --- what was done to it -----------------------------------------------------------------------------------


def test_every_flipped_byte_is_found(log: Path) -> None:
    path = log / "log.jsonl"
    text = path.read_bytes()
    good_head = audit_log._head(log)
    for place in range(len(text)):
        broken = bytearray(text)
        broken[place] ^= 1 << place % 8
        entries, sentence = audit_log._chain(bytes(broken).splitlines(keepends=True))
        sentence = sentence or audit_log._against_head(entries, good_head)
        assert sentence, f"byte {place}"
        number = text[:place].count(b"\n") + 1
        assert f"Line {number} " in sentence


def test_a_hundred_flips_in_all_of_its_files_are_found(log: Path) -> None:
    chance = random.Random(7)
    names = ["log.jsonl", "head.json", "head.json.sig"]
    for _ in range(100):
        path = log / chance.choice(names)
        text = path.read_bytes()
        broken = bytearray(text)
        place = chance.randrange(len(text))
        broken[place] ^= 1 << chance.randrange(8)
        path.write_bytes(broken)
        assert seen(log).sentences, f"{path.name}, byte {place}"
        path.write_bytes(text)
    assert len(good(log)) == LINES


def test_every_flip_in_the_signature_is_found(log: Path) -> None:
    """Base64 has bits that mean nothing, and ssh-keygen reads over blanks."""
    text, head = (log / "head.json.sig").read_bytes(), (log / "head.json").read_text()
    public = (log / "key.pub").read_text().split()[1]
    assert audit_log._is_signed(log, head, text.decode())
    for place in range(len(text)):
        for bit in range(8):
            broken = bytearray(text)
            broken[place] ^= 1 << bit
            try:
                signature = broken.decode()
            except ValueError:
                continue  # verify says so, the test above sees it
            if audit_log._written_anew(signature, public) == signature:  # the others need no process
                assert not audit_log._is_signed(log, head, signature), f"byte {place}, bit {bit}"


def test_a_signature_that_means_the_same_but_is_written_in_another_way_is_none(log: Path) -> None:
    text, head = (log / "head.json.sig").read_text(), (log / "head.json").read_text()
    head_line, body, rest = text.split("\n", 2)
    older = body[:11] + chr(ord(body[11]) ^ 0x10) + body[12:]
    for written in (text + "\n", text.replace("\n", "\r\n"), "\n".join([head_line, older, rest])):
        assert written != text
        assert not audit_log._is_signed(log, head, written)


@pytest.mark.parametrize(
    ("order", "sentence"),
    [
        ([1, 2, 4, 5, 6], "Line 3 was removed: line 4 stands in its place."),
        ([1, 2, 5, 6], "Lines 3 to 4 were removed: line 5 stands in its place."),
        ([2, 3, 4, 5, 6], "Line 1 was removed"),
        ([1, 2, 4, 3, 5, 6], "Line 3 was moved: line 4 stands in its place (reordered)."),
        ([6, 2, 3, 4, 5, 1], "Line 1 was moved"),
        ([1, 2, 3, 4, 5], "Line 6 was cut off: the head counts 6, and the last 1 of them are gone."),
        ([1, 2], "Line 3 was cut off"),
        ([], "Line 1 was cut off"),
        ([1, 2, 2, 3, 4, 5, 6], "Line 3 was inserted: it says that it is line 2."),
        ([1, 2, 3, 4, 5, 6, 6], "Line 7 was inserted"),
        ([1, 2, 3, 4, 5, 6, 1], "Line 7 was inserted"),
    ],
)
def test_lines_that_are_gone_moved_or_doubled_are_named(log: Path, order: list[int], sentence: str) -> None:
    lines = lines_of(log)
    put(log, [lines[number - 1] for number in order])
    [said] = seen(log).sentences
    assert said.startswith(sentence)


@pytest.mark.parametrize("number", range(1, LINES + 1))
def test_a_line_with_a_hash_made_anew_is_named(log: Path, number: int) -> None:
    lines = lines_of(log)
    lines[number - 1] = with_its_hash({**json.loads(lines[number - 1]), "who": "somebody else"})
    put(log, lines)
    [said] = seen(log).sentences
    assert said.startswith(f"Line {number} was altered")
    assert len(seen(log).entries) == number - 1, "what is listed is what can be believed"


@pytest.mark.parametrize("number", range(1, LINES + 2))
def test_a_line_put_in_with_a_right_hash_is_named(log: Path, number: int) -> None:
    lines = lines_of(log)
    before = json.loads(lines[number - 2])["hash"] if number > 1 else audit_log.NOTHING
    lines.insert(number - 1, with_its_hash({**json.loads(lines[0]), "n": number, "previous": before, "job": "never"}))
    put(log, lines)
    [said] = seen(log).sentences
    assert said.startswith(f"Line {number} was inserted")


@pytest.mark.parametrize("from_line", range(1, LINES + 1))
def test_a_chain_made_anew_to_its_end_does_not_meet_the_head(log: Path, from_line: int) -> None:
    lines = lines_of(log)
    before = json.loads(lines[from_line - 2])["hash"] if from_line > 1 else audit_log.NOTHING
    for place in range(from_line - 1, LINES):
        lines[place] = with_its_hash({**json.loads(lines[place]), "who": "somebody else", "previous": before})
        before = json.loads(lines[place])["hash"]
    put(log, lines)
    assert seen(log).sentences


@pytest.mark.parametrize("size", [1, 100, -1, -2])
def test_a_line_torn_at_the_end_is_found(log: Path, size: int) -> None:
    text = (log / "log.jsonl").read_bytes()
    last = text.rindex(b"\n", 0, -1) + 1
    (log / "log.jsonl").write_bytes(text[: (last if size > 0 else len(text)) + size])
    assert seen(log).sentences == ["Line 6 was cut off or altered."]


@pytest.mark.parametrize("name", ["log.jsonl", "head.json", "head.json.sig", "key.pub", "lock"])
def test_a_file_that_is_gone_was_removed_by_somebody(log: Path, name: str) -> None:
    (log / name).unlink()
    try:
        assert seen(log).sentences
    except AuditError as error:
        assert "a file of it was removed" in str(error)
    with pytest.raises(AuditError):
        append(an_entry(7), log)


def test_a_head_signed_with_another_key_is_none(log: Path, tmp_path: Path) -> None:
    append(an_entry(1), tmp_path / "other" / "audit")
    for name in ("head.json", "head.json.sig", "log.jsonl"):
        shutil.copy(tmp_path / "other" / "audit" / name, log / name)
    assert "is not what was signed" in seen(log).sentences[0]


def test_a_head_signed_for_another_purpose_is_none(log: Path) -> None:
    (log / "head.json.sig").unlink()
    sign = ["ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f"]
    subprocess.run([*sign, log / "key", log / "head.json"], check=True, capture_output=True)
    assert "is not what was signed" in seen(log).sentences[0]


@pytest.mark.parametrize("kept", [0, 3, LINES - 1])
def test_no_line_is_added_that_would_hide_what_was_cut_off(log: Path, kept: int) -> None:
    put(log, lines_of(log)[:kept])
    with pytest.raises(AuditError, match=r"does not end as its signed head says.*\(mv .*\) to begin a new log"):
        append(an_entry(7), log)
    assert seen(log).sentences[0].startswith(f"Line {kept + 1} was cut off")


def test_a_step_of_before_is_not_done_again(written: Path, tmp_path: Path) -> None:
    """A kept `next.json` takes nothing back: its step leads from where the log no longer stands."""
    log = tmp_path / "audit"
    shutil.copytree(written, log)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_a, **_k: None)
        append(an_entry(7), log)
    step = (log / "next.json").read_bytes()
    append(an_entry(8), log)
    (log / "next.json").write_bytes(step)
    assert "is not what was signed" in seen(log).sentences[0]
    whole = lines_of(log)
    put(log, whole[:LINES])
    assert seen(log).sentences, "the lines since then are missed, though the step would lead to a signed head"
    put(log, whole)
    (log / "next.json").unlink()
    assert len(good(log)) == LINES + 2


@pytest.mark.parametrize("change", [{"size": 0}, {"signature": "x"}, {"head": "{}"}, {"line": "x\n"}, {"line": 3}])
def test_a_step_of_ones_own_is_not_done(log: Path, change: dict[str, Any]) -> None:
    before = (log / "log.jsonl").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit_log, "_finish", lambda _folder: None)
        append(an_entry(7), log)
    plan = json.loads((log / "next.json").read_text())
    (log / "next.json").write_text(json.dumps({**plan, **change}))
    assert "is not what was signed" in seen(log).sentences[0]
    with pytest.raises(AuditError):
        append(an_entry(8), log)
    assert (log / "log.jsonl").read_bytes() == before


# --- crashes -----------------------------------------------------------------------------------------------


def _steps(monkeypatch: pytest.MonkeyPatch, at: int) -> Iterator[int]:
    """Count every step that leaves a trace on the disk, and end the process before the one that has number `at`."""
    done = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            nonlocal done
            done += 1
            if done == at:
                raise Killed
            return function(*args, **kwargs)

        return step

    for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "rename"), (Path, "unlink"), (audit_log, "_call")):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    while True:
        yield done


def test_an_append_may_die_at_each_of_its_steps(written: Path, tmp_path: Path) -> None:
    for at in range(1, 100):
        log = tmp_path / str(at)
        shutil.copytree(written, log)
        with pytest.MonkeyPatch.context() as patch:
            counter = _steps(patch, at)
            next(counter)
            try:
                append(an_entry(7), log)
                died = False
            except Killed:
                died = True
        jobs = good(log)
        assert jobs[:LINES] == [f"job{number}" for number in range(1, LINES + 1)]
        assert jobs[LINES:] in ([], ["job7"])
        append(an_entry(8), log)
        assert good(log) == [*jobs, "job8"]
        assert not (log / "next.json").exists()
        if not died:
            break
    assert at > 15, "there are more steps than that"


def test_the_first_append_may_die_at_each_of_its_steps(tmp_path: Path) -> None:
    for at in range(1, 100):
        log = tmp_path / str(at) / "audit"
        with pytest.MonkeyPatch.context() as patch:
            counter = _steps(patch, at)
            next(counter)
            try:
                append(an_entry(1), log)
                died = False
            except Killed:
                died = True
        found = audit_log.verify(log)
        assert found is None or not found.sentences
        append(an_entry(2), log)
        assert good(log) in (["job2"], ["job1", "job2"])
        if not died:
            break
    assert at > 20, "there are more steps than that"


def test_a_line_may_be_torn_at_each_byte(log: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit_log, "_finish", lambda _folder: None)
        append(an_entry(7), log)
    step, before = (log / "next.json").read_bytes(), (log / "log.jsonl").read_bytes()
    line = json.loads(step)["line"].encode()
    for size in range(0, len(line) + 1, 7):
        (log / "next.json").write_bytes(step)
        (log / "log.jsonl").write_bytes(before + line[:size])
        audit_log._finish(log)
        assert (log / "log.jsonl").read_bytes() == before + line
    assert good(log)[-1] == "job7"


def test_killed_writers_leave_a_good_log(tmp_path: Path) -> None:
    log = tmp_path / "audit"
    program = (
        "import sys; from pathlib import Path\n"
        "from ansible_collections.faceswap.ops.plugins.module_utils.audit_log import append\n"
        "while True: print(append({'job': 'x'}, Path(sys.argv[1])), flush=True)\n"
    )
    told: list[str] = []
    chance = random.Random(3)
    for _ in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", program, log],
            env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            time.sleep(0.4 + 0.3 * chance.random())
            writer.send_signal(signal.SIGKILL)
            told += writer.communicate()[0].split()
        findings = audit_log.verify(log)
        assert findings is None or not findings.sentences
    hashes = [entry["hash"] for entry in seen(log).entries]
    assert [made for made in hashes if made in set(told)] == told, "what was said to be written is there, in order"
    assert told


def _append_some(folder: Path, writer: int) -> None:
    for number in range(5):
        append({"job": f"{writer}-{number}"}, folder)


def test_several_writers_lose_nothing(tmp_path: Path) -> None:
    """From nothing: each would be the first."""
    log = tmp_path / "audit"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append_some, args=(log, writer)) for writer in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0] * 4
    jobs = good(log)
    assert sorted(jobs) == sorted(f"{writer}-{number}" for writer in range(4) for number in range(5))
    assert [path.name for path in tmp_path.iterdir()] == ["audit"], "who came second left nothing behind"
