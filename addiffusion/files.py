"""Files that are whole or not there: a process that is killed while it writes leaves the old one."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Generator[Path]:
    """A draft beside ``path``, to be written in the block, which takes its place when the block ends well."""
    draft = path.with_name(path.name + ".partial")
    yield draft
    draft.replace(path)


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` in one step."""
    with whole_file(path) as draft:
        draft.write_text(text, encoding="utf-8")
