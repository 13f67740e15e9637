"""A file is whole or not there, whatever happens while it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from addiffusion.files import whole_file, write_text


def write_half(path: Path) -> None:
    with whole_file(path) as draft:
        draft.write_text("half")
        raise ZeroDivisionError


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError):
        write_half(path)
    assert path.read_text() == "old"
    with whole_file(path) as draft:
        draft.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_files_that_differ_in_their_ending_have_drafts_of_their_own(tmp_path: Path) -> None:
    with whole_file(tmp_path / "table.md") as one, whole_file(tmp_path / "table.tex") as other:
        assert one != other
        one.touch()
        other.touch()
