"""Sections of a page that commands of their own write, each behind a mark and up to the next mark."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from addiffusion.files import make_folder, write_bytes, write_text

PICTURES = "results"
"""Folder of a page's pictures, beside it."""
_MARK = re.compile(r"(?=^<!-- [^\n]*: written by `addiffusion [^`]*` -->$)", re.MULTILINE)


def mark(title: str, command: str) -> str:
    """The line that a section begins with."""
    return f"<!-- {title}: written by `{command}` -->"


def sections_of(page: str) -> list[str]:
    """The marked sections of a page, in their order."""
    return _MARK.split(page)[1:]


def write_section(path: Path, section: str) -> None:
    """Put a section, whose first line is its mark, in place of the one before, or at the end of a page."""
    page = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, *sections = _MARK.split(page)
    marks = [one.partition("\n")[0] for one in sections]
    own = section.partition("\n")[0]
    if own in marks:
        sections[marks.index(own)] = section
    else:
        sections.append(section)
    write_text(path, "\n\n".join(part.strip("\n") for part in (before, *sections) if part.strip()) + "\n")


def write_pictures(page: Path, plots: Iterable[Path], *, name: str | None = None) -> None:
    """Copy pictures to where a page shows them.

    Args:
        page: which.
        plots: files of them.
        name: of the copy of an only one; None keeps their own.
    """
    folder = page.parent / PICTURES
    make_folder(folder)
    for plot in plots:
        write_bytes(folder / (name or plot.name), plot.read_bytes())
