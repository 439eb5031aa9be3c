"""What a module tells its action plugin through a file."""

from pathlib import Path

import pytest
from ansible_collections.faceswap.ops.plugins.module_utils.run_progress import (
    RunProgress,
    progress_file,
    read_progress,
)


def test_what_is_said_stays_and_what_goes_on_passes(tmp_path: Path) -> None:
    path = progress_file(str(tmp_path), "studio")
    progress = RunProgress(path)
    progress.say("Launching")
    progress.now("PROVISIONING, 0:01")
    assert read_progress(path) == (["Launching"], "PROVISIONING, 0:01")
    progress.say("RUNNING")
    assert read_progress(path) == (["Launching", "RUNNING"], "")
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"said": 1, "now": ""}', '{"now": ""}'])
def test_no_file_and_a_foreign_one_say_nothing(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "progress.json"
    if content is not None:
        path.write_text(content)
    assert read_progress(path) == ([], "")


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    RunProgress(None).say("Launching")
    assert list(tmp_path.iterdir()) == []
