"""The mark of a content: another one for another content, whatever the name and the place."""

from pathlib import Path

from ansible_collections.faceswap.ops.plugins.filter.content_mark import content_mark


def test_it_goes_by_the_content(tmp_path: Path) -> None:
    marks = []
    for name, text in (("one", "a"), ("two", "a"), ("three", "b")):
        (tmp_path / name / "part" / "__pycache__").mkdir(parents=True)
        (tmp_path / name / "part" / "file").write_text(text)
        (tmp_path / name / "part" / "__pycache__" / "made").write_text(name)
        marks.append(content_mark(str(tmp_path / name), ["__pycache__"]))
        assert len(marks[-1]) == 12
    assert marks[0] == marks[1] != marks[2]
    files = [content_mark(str(tmp_path / name / "part" / "file")) for name in ("one", "two", "three")]
    assert files[0] == files[1] != files[2]


def test_what_transfer_refuses_has_some_mark(tmp_path: Path) -> None:
    assert content_mark(str(tmp_path / "none")) == content_mark("not/absolute") == "nothing"
