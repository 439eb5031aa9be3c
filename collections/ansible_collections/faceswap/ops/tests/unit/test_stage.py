"""The controller's half of a stage: what it does while the host does not answer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible_collections.faceswap.ops.plugins.action import stage
from ansible_collections.faceswap.ops.plugins.plugin_utils.host_programs import HostPrograms

CUT = AnsibleConnectionFailure("Failed to connect to the host via ssh: Connection timed out")
RUNS = {"alive": True, "progress": {"stage": "train", "done": 4, "total": 9}, "complete": False}
ENDED = {"alive": False, "progress": {"stage": "train", "done": 9, "total": 9}, "complete": True}


class Said:
    """The living line."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def show(self, text: str, data: Any) -> None:
        self.lines.append(text)

    def close(self) -> None:
        pass


class Host:
    """A host whose answers are given: statuses, raw text or exceptions; a clock that only sleep moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answers: Iterator[Any], patience: int = 600) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self.resets = 0
        self.line = Said()
        self.action = stage.ActionModule.__new__(stage.ActionModule)
        self.action._job, self.action._stage = "/jobs/anna", "train"
        self.action._patience, self.action._host = patience, "studio"
        self.action._connection = self
        self.orders: list[Any] = []
        self.logged: list[dict[str, Any]] = []
        self.action._programs = HostPrograms(self.execute, "python3", "/bin/supervisor.py", {})
        self.answers = answers
        monkeypatch.setattr(stage, "host_programs", lambda *_: self.action._programs)
        monkeypatch.setattr(stage, "controllers_revocations", lambda _: None)
        monkeypatch.setattr(stage.audit_log, "append", self.logged.append)
        monkeypatch.setattr(stage.audit_log, "knows", lambda entry: entry["outputs"] == {"model": "known"})
        monkeypatch.setattr(time, "sleep", self.sleep)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(stage, "LivingLine", lambda host, columns: self.line)

    def execute(self, command: str, in_data: bytes = b"") -> dict[str, Any]:
        """What a program on the host would say; its order is the last two lines of what it is sent."""
        self.orders.append([json.loads(line) if line else None for line in in_data.decode().split("\n")[-2:]])
        return self.answer(next(self.answers))

    @staticmethod
    def answer(one: Any) -> dict[str, Any]:
        if isinstance(one, Exception):
            raise one
        return {"rc": 0, "stdout": one if isinstance(one, str) else json.dumps(one), "stderr": ""}

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def reset(self) -> None:
        self.resets += 1

    def run(self, monkeypatch: pytest.MonkeyPatch, follow: bool, check: bool = False) -> dict[str, Any]:
        spec = {"supervisor": "/bin/supervisor.py", "job_dir": "/jobs/anna", "stage": "train", "patience_s": 600}
        monkeypatch.setattr(self.action, "validate_argument_spec", lambda **_: (None, {**spec, "follow": follow}))
        monkeypatch.setattr(stage.ActionBase, "run", lambda *_: {})
        monkeypatch.setattr(self.action, "_task", SimpleNamespace(check_mode=check, diff=False), raising=False)
        result: dict[str, Any] = self.action.run()
        return result

    def follow(self) -> dict[str, Any]:
        end: dict[str, Any] = self.action._follow("train")
        return end


def test_a_host_that_comes_back_is_watched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, iter([RUNS, *[CUT] * 7, RUNS, ENDED]))
    assert host.follow() == ENDED
    assert host.pauses == [1, 1, 2, 4, 7, 10, 10, 10, 1]  # the first and the last between two looks
    assert host.resets == 7, "a connection that hangs would be taken again"
    told = [line for line in host.line.lines if "host" in line]
    assert told == [
        "train: the host does not answer; the job goes on there",
        "train: the host answers again",
    ]


def test_what_the_host_decided_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    halved = {**RUNS, "progress": {**RUNS["progress"], "note": "Memory ran out"}}  # type: ignore[dict-item]
    host = Host(monkeypatch, iter([RUNS, halved, halved, ENDED]))
    host.follow()
    assert host.line.lines.count("train: Memory ran out") == 1


@pytest.mark.parametrize("follow", [False, True])
def test_a_stage_is_followed_or_only_started(monkeypatch: pytest.MonkeyPatch, follow: bool) -> None:
    started = {"changed": True, "reason": "it was never run", "command": ["x"], "running": True}
    end = {**ENDED, "seconds": 61, "iterations": 9, "exit_code": 0, "ended": {"by": "hours", "reason": "Enough."}}
    host = Host(monkeypatch, iter([started, RUNS, end]))
    result = host.run(monkeypatch, follow=follow)
    assert result["changed"] and result["running"]
    assert result.get("msg") == ("train took 1:01: Enough." if follow else None)
    told, order = host.orders[0]
    assert told["words"] == ["start", "/jobs/anna", "train"] and order["spec"] == {"stage": "train"}
    assert [entry["event"] for entry in host.logged] == (["done"] if follow else [])


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize(
    ("reason", "end", "logged"),
    [
        ("nothing changed", {"outputs": {"model": "new"}}, 1),
        ("nothing changed", {"outputs": {"model": "known"}}, 0),
        ("an earlier result of these inputs and settings was brought back", {"outputs": {"model": "new"}}, 1),
        ("nothing changed", {"outputs": {"model": "new"}, "complete": False}, 0),
    ],
)
def test_an_end_that_nobody_followed_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, follow: bool, reason: str, end: dict[str, Any], logged: int
) -> None:
    answer = {"changed": reason != "nothing changed", "reason": reason, "command": ["x"], "running": False}
    host = Host(monkeypatch, iter([answer, {**ENDED, "sources": {"a": "00"}, **end}]))
    assert "failed" not in host.run(monkeypatch, follow=follow)
    assert [(entry["event"], entry["inputs"], entry["message"]) for entry in host.logged] == [
        ("done", {"source a": "00"}, stage.FOUND)
    ] * logged


def test_in_check_mode_an_end_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, iter([{"changed": False, "reason": "nothing changed", "command": [], "running": False}]))
    monkeypatch.setattr(host.action, "_remote_file_exists", lambda _: True)
    assert not host.run(monkeypatch, follow=True, check=True)["changed"] and not host.logged


@pytest.mark.parametrize("when", ["at the start", "at the end"])
def test_a_refusal_has_its_code_and_is_logged(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    started = {"changed": True, "reason": "it was never run", "command": ["x"], "running": True}
    end = {"alive": False, "progress": {}, "complete": False, "message": "Nobody agreed.", "code": 27}
    end |= {"seconds": 1, "iterations": None, "exit_code": 27}
    refusal = {"error": "Nobody agreed.", "code": 27}
    host = Host(monkeypatch, iter([refusal] if when == "at the start" else [started, end]))
    result = host.run(monkeypatch, follow=True)
    assert result["failed"] and result["consent_code"] == 27 and result["msg"] == "Nobody agreed."
    assert [(entry["event"], entry["code"], entry["message"]) for entry in host.logged] == [
        ("refused", 27, "Nobody agreed.")
    ]


def test_in_check_mode_other_programs_on_the_host_are_to_be_brought(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, iter([{"error": "x", "code": 30, "differing": "gate.py"}]))
    monkeypatch.setattr(host.action, "_remote_file_exists", lambda _: True)
    result = host.run(monkeypatch, follow=True, check=True)
    assert result["changed"] and "failed" not in result and not host.logged


def test_a_line_that_cannot_be_logged_fails_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    started = {"changed": True, "reason": "it was never run", "command": ["x"], "running": True}
    host = Host(monkeypatch, iter([started, {**ENDED, "seconds": 61, "iterations": 9, "exit_code": 0}]))

    def fail(_: Any) -> None:
        raise stage.audit_log.AuditError("The log is gone: look.")

    monkeypatch.setattr(stage.audit_log, "append", fail)
    with pytest.raises(AnsibleActionFail, match="The log is gone"):
        host.run(monkeypatch, follow=True)


def test_patience_ends_with_one_sentence_and_the_host_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, iter([RUNS, *[CUT] * 100]), patience=60)
    with pytest.raises(AnsibleConnectionFailure) as raised:
        host.follow()
    assert 60 < host.now < 75
    assert str(raised.value) == (
        "studio has not answered for 1:04 (Failed to connect to the host via ssh: Connection timed out), and stage "
        "train goes on there without this machine: run the same command again to watch it."
    )


def test_another_host_key_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = AnsibleConnectionFailure("WARNING: REMOTE HOST ID...\nHost key verification failed.")
    host = Host(monkeypatch, iter([RUNS, changed]))
    with pytest.raises(AnsibleConnectionFailure, match="Host key verification failed"):
        host.follow()
    assert host.resets == 0


def test_the_words_host_key_alone_do_not_end_the_watching(monkeypatch: pytest.MonkeyPatch) -> None:
    talkative = AnsibleConnectionFailure("debug1: Server host key: ssh-ed25519 SHA256:abc\nConnection timed out")
    assert Host(monkeypatch, iter([RUNS, talkative, RUNS, ENDED])).follow() == ENDED


def test_a_host_that_goes_down_in_the_middle_of_an_answer_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Host(monkeypatch, iter([RUNS, "", "Terminated", CUT, CUT, RUNS, ENDED])).follow() == ENDED


def test_a_supervisor_that_is_gone_is_told_before_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, iter([RUNS, *["sh: supervisor.py: not found"] * 100]))
    with pytest.raises(AnsibleActionFail, match="The supervisor did not answer"):
        host.follow()
    assert stage.NONSENSE_SECONDS < host.now < 2 * stage.NONSENSE_SECONDS


def test_a_refusal_is_believed_when_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A systemd that reloads, or goes down, refuses for a moment what it grants again after it."""
    refusal = {"error": "systemd refused `systemctl show`."}
    assert Host(monkeypatch, iter([RUNS, refusal, refusal, RUNS, ENDED])).follow() == ENDED
    host = Host(monkeypatch, iter([RUNS, *[refusal] * 100]))
    with pytest.raises(AnsibleActionFail, match=r"^systemd refused `systemctl show`\.$"):
        host.follow()
    assert stage.NONSENSE_SECONDS < host.now < 2 * stage.NONSENSE_SECONDS
