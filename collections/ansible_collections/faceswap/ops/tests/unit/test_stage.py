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
        self.action._prefix, self.action._place = "supervisor.py", "/jobs/anna train"
        self.action._patience, self.action._host = patience, "studio"
        self.action._connection = self
        self.action._low_level_execute_command = lambda command, in_data=None: self.answer(next(answers))
        monkeypatch.setattr(time, "sleep", self.sleep)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(stage, "LivingLine", lambda host, columns: self.line)

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
    spec = {"supervisor": "supervisor.py", "job_dir": "/jobs/anna", "stage": "train", "patience_s": 600}
    monkeypatch.setattr(host.action, "validate_argument_spec", lambda **_: (None, {**spec, "follow": follow}))
    monkeypatch.setattr(stage.ActionBase, "run", lambda *_: {})
    monkeypatch.setattr(host.action, "_task", SimpleNamespace(check_mode=False, diff=False), raising=False)
    result = host.action.run()
    assert result["changed"] and result["running"]
    assert result.get("msg") == ("train took 1:01: Enough." if follow else None)


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
