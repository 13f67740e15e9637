"""Rows of tables of prompts: CSV as spreadsheets write it, and TSV, which has no quotes."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from addiffusion.errors import PromptError
from addiffusion.prompts.text import numbered_lines

Row: TypeAlias = dict[str, str]
"""Cells by column."""
Wrong: TypeAlias = Callable[[str], PromptError]
"""The error for a table that is not of its form, from the reason."""
_SEPARATORS: Final = (",", ";", "\t")
_DECLARED: Final = re.compile(r"sep=([^\w\s\"]|\t)", re.IGNORECASE)
"""The line by which spreadsheets are told what separates columns."""
_BREAK: Final = re.compile(r"\s*\n\s*")


def csv_rows(path: Path, columns: Sequence[str], wrong: Wrong) -> Iterator[Row]:
    """Rows of a CSV file with at least ``columns``: by commas, semicolons or tabs, or by what a line ``sep=`` says.

    A line break in a quoted cell is a space.

    Raises:
        PromptError: it can't be read, lacks a column, or a quote has no end; the message names the line.
    """
    lines = [line for _, line in numbered_lines(path)]
    if declared := _DECLARED.fullmatch(lines[0]):
        return _rows(path, csv.reader(_ended(["", *lines[1:]]), delimiter=declared[1], strict=True), columns, wrong)
    header = next((line for line in lines if line), "")
    fitting = (one for one in _SEPARATORS if set(columns) <= {name.strip(' "') for name in header.split(one)})
    return _rows(path, csv.reader(_ended(lines), delimiter=next(fitting, ","), strict=True), columns, wrong)


def tsv_rows(path: Path, columns: Sequence[str], wrong: Wrong) -> Iterator[Row]:
    """Rows of a TSV file with at least ``columns``; a quotation mark is a character like any other.

    Raises:
        PromptError: it can't be read, lacks a column, or has a cell beyond all measure; the message names the line.
    """
    lines = [line for _, line in numbered_lines(path)]
    return _rows(path, csv.reader(_ended(lines), delimiter="\t", quoting=csv.QUOTE_NONE), columns, wrong)


def _ended(lines: Sequence[str]) -> Iterator[str]:
    return (f"{line}\n" for line in lines)


def _rows(path: Path, reader: Any, columns: Sequence[str], wrong: Wrong) -> Iterator[Row]:
    header: list[str] | None = None
    for line, cells in _numbered(path, reader):
        if header is None:
            header = cells
            _check_header(header, columns, wrong)
            continue
        row = dict(zip(header, cells, strict=False))
        if any(column not in row for column in columns):
            raise wrong(f"row {line} has too few columns")
        yield row
    if header is None:
        _check_header([], columns, wrong)


def _numbered(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Rows that hold something, each with the number of its first line."""
    line = 1
    try:
        for cells in reader:
            folded = [_BREAK.sub(" ", cell).strip() for cell in cells]
            if any(folded):
                yield line, folded
            line = reader.line_num + 1
    except csv.Error as error:
        raise PromptError(
            f"Line {line} of the prompt file {path} is no row of a table ({error}): a cell has at most "
            f"{csv.field_size_limit()} characters; in a CSV file one that begins with a quotation mark ends with one, "
            "and those inside it are doubled.",
            path=str(path),
            line=line,
        ) from error


def _check_header(names: Sequence[str], columns: Sequence[str], wrong: Wrong) -> None:
    missing = [column for column in columns if column not in names]
    if missing:
        raise wrong(f"its first line names no column {' and '.join(missing)}")
