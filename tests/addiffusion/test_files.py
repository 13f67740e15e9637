"""Files and folders that are whole or not there."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from addiffusion.errors import OutputError
from addiffusion.files import (
    append_line,
    make_folder,
    put_aside,
    put_back,
    remove_folder,
    whole_file,
    whole_folder,
    write_bytes,
    write_text,
)
from tests.disks import names, small_disk


def half_write(path: Path, error: Exception) -> None:
    with whole_file(path) as draft:
        draft.write_text("half")
        raise error


def test_a_file_that_could_not_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_text(path, "old")
    with pytest.raises(RuntimeError):
        half_write(path, RuntimeError())
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.json"]
    write_text(path, "new")
    assert (path.read_text(), names(tmp_path)) == ("new", ["result.json"])


def test_two_writers_of_one_file_never_meet(tmp_path: Path) -> None:
    path = tmp_path / "plot.png"
    with whole_file(path) as one, whole_file(path) as other:
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"  # the later end
    assert names(tmp_path) == ["plot.png"]

    failures: list[Exception] = []

    def write(text: str) -> None:
        try:
            for _ in range(50):
                write_text(path, text)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(text * 1000,)) for text in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert path.read_text() in {"a" * 1000, "b" * 1000}


def test_a_name_as_long_as_the_file_system_takes_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".txt")
    write_text(path, "all")
    assert path.read_text() == "all"


def test_access_rights_are_those_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "one", b"1")
        with whole_folder(tmp_path / "two") as draft:
            (draft / "inner").write_bytes(b"2")
            (draft / "inner").chmod(0o600)  # as safetensors leaves it
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "two").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "two" / "inner").stat().st_mode) == 0o640


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_failure_is_one_sentence_with_path_and_cause(tmp_path: Path, number: int) -> None:
    path = tmp_path / "result.json"
    write_text(path, "old")
    with pytest.raises(OutputError, match=rf"result.json can't be written \({os.strerror(number)}\): .+\.$") as caught:
        half_write(path, OSError(number, os.strerror(number)))
    assert caught.value.facts["errno"] == number
    assert (path.read_text(), names(tmp_path)) == ("old", ["result.json"])


def save_parquet(draft: Path) -> None:
    pq.write_table(pa.table({"x": np.random.default_rng(0).random(20_000)}), draft)


def save_png(draft: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(draft, format="PNG")


def save_npz(draft: Path) -> None:
    with draft.open("wb") as file:
        np.savez(file, x=np.zeros(20_000))


@pytest.mark.parametrize("save", [save_parquet, save_png, save_npz, lambda draft: draft.write_bytes(bytes(100_000))])
def test_a_full_disk_keeps_the_old_file_whoever_writes(tmp_path: Path, save: Callable[[Path], object]) -> None:
    with small_disk(tmp_path / "disk", 32) as disk:
        write_text(disk / "file", "old")
        refused = pytest.raises(OutputError, match=r"disk/file can't be written \(No space left on device\): make room")
        with refused, whole_file(disk / "file") as draft:
            save(draft)
        assert ((disk / "file").read_text(), names(disk)) == ("old", ["file"])


def test_a_line_is_added_whole_or_not_at_all(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8) as disk:
        path = disk / "metrics.jsonl"
        append_line(path, "first")
        with pytest.raises(OutputError, match=r"metrics.jsonl can't be written \(No space left"):
            append_line(path, "x" * 20_000)
        assert path.read_text() == "first\n"
        append_line(path, "second")
        assert path.read_text() == "first\nsecond\n"


def test_a_line_after_one_that_was_cut_short_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    path.write_text('{"whole": 1}\n{"torn')
    append_line(path, '{"whole": 2}')
    assert path.read_text() == '{"whole": 1}\n{"torn\n{"whole": 2}\n'


def half_fill(folder: Path) -> None:
    with whole_folder(folder) as draft:
        (draft / "file").write_text("half")
        raise RuntimeError


def fill(folder: Path, text: str) -> None:
    with whole_folder(folder) as draft:
        (draft / "file").write_text(text)


def test_a_folder_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    fill(tmp_path / "one", "old")
    with pytest.raises(RuntimeError):
        half_fill(tmp_path / "one")
    assert (tmp_path / "one" / "file").read_text() == "old"
    fill(tmp_path / "one", "new")
    assert (tmp_path / "one" / "file").read_text() == "new"
    assert names(tmp_path) == ["one", "one/file"]


class KilledAt:
    """Interrupts (as a second Ctrl-C) or ends (as a kill) the process's ``count``-th renaming or removal."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int, *, after: bool, dead: bool) -> None:
        self.left, self.after, self.dead = count, after, dead
        self.replace = Path.replace
        monkeypatch.setattr(Path, "replace", lambda *paths: self(*paths))  # noqa: PLW0108 - bound as a method

    def __call__(self, path: Path, target: Path) -> Path:
        self.left -= 1
        if self.left < 0 and self.dead:
            raise KeyboardInterrupt  # nothing more happens to the disk
        if self.left == 0 and not self.after:
            raise KeyboardInterrupt
        moved = self.replace(path, target)
        if self.left == 0:
            raise KeyboardInterrupt
        return moved


@pytest.mark.parametrize("dead", [True, False])
@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_at_any_moment_a_whole_folder_is_there(tmp_path: Path, count: int, *, after: bool, dead: bool) -> None:
    one = tmp_path / "one"
    fill(one, "old")
    with pytest.MonkeyPatch.context() as patch:
        KilledAt(patch, count, after=after, dead=dead)
        with pytest.raises(KeyboardInterrupt):
            fill(one, "new")
    found = one if one.is_dir() else put_aside(one)
    assert (found / "file").read_text() in {"old", "new"}
    put_back(tmp_path)
    assert names(tmp_path) == ["one", "one/file"]


def test_a_folder_that_goes_is_never_half_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "one", "old")
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # killed before it began
    remove_folder(tmp_path / "one")
    assert not (tmp_path / "one").exists()
    monkeypatch.undo()
    put_back(tmp_path)
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/folder can't be written \(Not a directory\)"):
        make_folder(tmp_path / "file" / "folder")
