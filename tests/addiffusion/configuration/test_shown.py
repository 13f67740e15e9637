"""Text of somebody else's in a terminal: short, on one line, and without effect."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from addiffusion.configuration.shown import LIMIT, quoted
from launch.comparing.score import Scored, ScoredFile, table

HOSTILE = {
    "escape sequence": "a \x1b[31mred\x1b[0m circle \x1b]0;title\x07",
    "line ends": "a red\r\ncircle\n\n\tand\x00more\x85again\u2028too",
    "direction": "a \u202ered\u202c circle",
    "wide": "\u732b" * 200,
    "combining": "e" + "\u0301" * 5000,
    "half of a pair": "a \udcff circle \ud83d",
    "markup": "[red]a[/] [link=file:///etc]circle[/link]",
    "giant": "a red circle " * 100_000,
    "quotes": "a \"red\" 'circle'\\",
    "none": "",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_prompt_is_shown_short_printable_and_on_one_line(name: str) -> None:
    found = quoted(HOSTILE[name])
    assert found.isprintable()
    assert len(found) <= LIMIT + 2
    found.encode("utf-8")
    assert (found[0], found[-1] if not found.endswith("...") else found[0]) in {('"', '"'), ("'", "'")}


def test_an_ordinary_prompt_is_shown_as_it_is() -> None:
    assert quoted("a red circle, \u732b") == '"a red circle, \u732b"'
    assert quoted("x" * LIMIT) == f'"{"x" * LIMIT}"'
    assert quoted("x" * (LIMIT + 1)) == f'"{"x" * (LIMIT - 3)}..."'


@pytest.mark.parametrize("width", [20, 80])
@pytest.mark.parametrize("name", HOSTILE)
def test_the_table_of_scores_does_nothing_to_the_terminal(name: str, width: int) -> None:
    file = io.StringIO()
    one = ScoredFile(path=Path("a.png"), scores={}, errors={})
    Console(file=file, width=width).print(table(Scored(prompt=HOSTILE[name], specs=(), files=(one,))))
    lines = file.getvalue().split("\n")
    assert all(line.isprintable() for line in lines)
    assert len(lines) < 40
    assert max(map(cell_len, lines)) <= width
    if name == "markup":
        assert "[red]" in file.getvalue()
