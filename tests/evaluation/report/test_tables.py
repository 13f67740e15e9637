"""Tables in terminals of any width."""

from __future__ import annotations

import ast
from io import StringIO
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from evaluation.tables import Table, ascii_only

ROOT = Path(__file__).parents[3]
NUMBERS = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: f"{value:.3f}")


def printed(table: Table, width: int, encoding: str = "utf-8") -> str:
    file = StringIO()
    Console(file=file, width=width).print(table)
    return file.getvalue()


@example(rows=[["-1000000.000", "0.000", "0.000"]], width=58, boxed=True)
@given(st.lists(st.lists(NUMBERS, min_size=3, max_size=3), min_size=1, max_size=4), st.integers(24, 120), st.booleans())
def test_no_number_is_cut_at_any_width(rows: list[list[str]], width: int, boxed: bool) -> None:
    table = Table(title="what was measured") if boxed else Table(box=None, title="what was measured")
    table.add_column("image", overflow="fold")
    for name in ("clip ↑\ncosine", "aesthetic ↑\npoints of ten", "image_reward ↑"):
        table.add_column(name, justify="right")
    for index, row in enumerate(rows):
        table.add_row(f"a/folder/with/images/{index}.png", *row)
    words = printed(table, width).replace("│", " ").split()
    for number in (number for row in rows for number in row):
        assert number in words


def test_a_wide_terminal_has_the_table_and_a_narrow_one_a_line_per_figure() -> None:
    table = Table()
    table.add_column("image", overflow="fold")
    for name in ("clip", "aesthetic", "image_reward", "scene_soft"):
        table.add_column(name)
    table.add_row("a.png", "0.812", "6.042", "", "1.000")
    assert "0.812 │ 6.042" in printed(table, 80)
    assert printed(table, 40).splitlines() == ["a.png", "  clip 0.812", "  aesthetic 6.042", "  scene_soft 1.000"]


def test_markup_in_a_cell_is_rendered_in_both_forms() -> None:
    table = Table("name", "a rather long heading", "another long heading")
    table.add_row("[bold]agent[/]", "0.1", "0.2")
    assert "agent" in printed(table, 20)
    assert "[bold]" not in printed(table, 20)


def test_a_terminal_without_utf_8_gets_ascii() -> None:
    class Ascii(StringIO):
        encoding = "ascii"  # type: ignore[assignment] - read-only in the library's stubs

    assert ascii_only(Console(file=Ascii()))
    assert not ascii_only(Console(file=StringIO()))


def test_every_table_that_is_printed_keeps_its_numbers_whole() -> None:
    """rich's own table cuts them: nobody else imports it."""
    own = {Path("evaluation/tables.py")}
    for folder in ("addiffusion", "evaluation", "launch", "learner", "reward_service", "rollout_workers"):
        for file in (ROOT / folder).rglob("*.py"):
            imported = [
                node.module for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)
            ]
            assert "rich.table" not in imported or file.relative_to(ROOT) in own, file
