"""The living line, as the terminal or a log shows it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.faceswap.ops.plugins.module_utils.progress import format_progress
from ansible_collections.faceswap.ops.plugins.plugin_utils import living_line


class Clock:
    """A double of the clock: time passes when the test says so."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, bool]]]:
    lines: list[tuple[str, bool]] = []
    monkeypatch.setattr(living_line.display, "display", lambda text, newline=True: lines.append((text, newline)))
    monkeypatch.delenv("FACESWAP_OPS_PROGRESS", raising=False)
    yield lines


def progress(done: int) -> tuple[str, dict[str, Any]]:
    data = {"stage": "train", "done": done, "total": 600, "rate": 4.8, "loss_a": 0.1, "loss_b": 0.2, "eta": 61}
    return format_progress(data), data


def test_on_a_terminal_one_line_is_refreshed(shown: list[tuple[str, bool]]) -> None:
    line = living_line.LivingLine("localhost", 40)
    for done in (1, 2, 3):
        line.show(*progress(done))
    line.close()
    assert [newline for _, newline in shown] == [False] * 4
    assert all(text.startswith("\r\x1b[2K") for text, _ in shown)
    text = shown[1][0].removeprefix("\r\x1b[2K")
    assert text.startswith("train  2/600  4.8/s  loss A 0.1000") and len(text) == 39  # cut, so that it does not wrap


def test_without_a_terminal_a_line_every_30_seconds(
    shown: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(living_line, "time", clock)
    line = living_line.LivingLine("gpu1", None)
    for second in range(91):
        clock.now = 100.0 + second
        line.show(*progress(second))
    line.close()
    assert [text.split()[2] for text, _ in shown] == ["0/600", "30/600", "60/600", "90/600"]
    assert all(newline and text.startswith("gpu1: train  ") and "\r" not in text for text, newline in shown)


def test_for_a_program_each_update_is_one_line_of_json(
    shown: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACESWAP_OPS_PROGRESS", "json")
    line = living_line.LivingLine("localhost", 40)
    line.show(*progress(7))
    line.close()
    [(text, newline)] = shown
    told = json.loads(text)["faceswap_progress"]
    assert newline and told["done"] == 7 and told["text"].startswith("train  7/600")


@pytest.mark.parametrize("columns", [40, None])
def test_a_line_that_stays_is_whole_and_ends_the_living_one(
    shown: list[tuple[str, bool]], columns: int | None
) -> None:
    line = living_line.LivingLine("studio", columns)
    line.show(*progress(7))
    line.say("Oracle is out of capacity " * 4)
    assert shown[-1] == ("studio: " + "Oracle is out of capacity " * 4, True)
    assert (shown[-2] == ("\r\x1b[2K", False)) is bool(columns)


def test_a_line_that_stays_is_json_for_a_program(
    shown: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACESWAP_OPS_PROGRESS", "json")
    living_line.LivingLine("studio", 40).say("Launching VM.GPU.A10.1")
    assert [json.loads(text) for text, _ in shown] == [{"faceswap_said": "studio: Launching VM.GPU.A10.1"}]
