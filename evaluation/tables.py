"""Tables for terminals of any width: a number is shown whole or not in a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich import table
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.text import Text

from evaluation.seconds import SECONDS_NOTE

_FOLDED_WIDTH = 12
"""Characters a line that may be folded needs to be read."""


class Table(table.Table):
    """Rich's table; where it is wider than the terminal, a line per cell, each under the name of its row.

    Columns with ``overflow="fold"`` (names, paths) give way first.
    """

    def fits(self, console: Console, options: ConsoleOptions) -> bool:
        """Whether every word and number has room."""
        needed = sum(self._least(console, options, column) for column in self.columns)
        return needed + self._extra_width <= options.max_width

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Rich's protocol."""
        if not self.fits(console, options):
            yield from self._lines(console)
            return
        narrow = self.__rich_measure__(console, _wide(options)).maximum > options.max_width
        whole = [column for column in self.columns if narrow and self._keeps_words(column)]
        for column in whole:  # else rich takes from all columns, those with numbers too
            column.width = self._least(console, options, column) - self._sides
        try:
            yield from super().__rich_console__(console, options)
        finally:
            for column in whole:
                column.width = None

    @property
    def _sides(self) -> int:
        return sum(self.padding[side] for side in (1, 3))

    @staticmethod
    def _keeps_words(column: table.Column) -> bool:
        return column.width is None and column.overflow != "fold" and not column.no_wrap

    def _least(self, console: Console, options: ConsoleOptions, column: table.Column) -> int:
        wide = _wide(options)
        cells = (*((column.header,) if self.show_header else ()), *column.cells)
        least = max((Measurement.get(console, wide, cell).minimum for cell in cells), default=0)
        return self._sides + (min(least, _FOLDED_WIDTH) if column.overflow == "fold" else least)

    def _lines(self, console: Console) -> Iterator[RenderableType]:
        if self.title:
            yield _text(console, self.title)
        for row in zip(*(column.cells for column in self.columns), strict=True):
            name, *values = (_text(console, cell) for cell in row)
            yield name
            for column, value in zip(self.columns[1:], values, strict=True):
                if value.plain:
                    header = " ".join(_text(console, column.header).plain.split()) if self.show_header else ""
                    yield Text(f"  {header} ".rstrip(" ") + " " if header else "  ").append(value)
        if self.caption:
            yield _text(console, self.caption)


def _wide(options: ConsoleOptions) -> ConsoleOptions:
    return options.update(max_width=max(options.max_width, 10_000))


def samplers_table(title: str, names: Iterable[str], *, whole_titles: bool = True) -> Table:
    """A table of samplers, without rows as yet, that says what seconds per image are.

    Args:
        title: above it.
        names: heads of the numbers, right of the sampler.
        whole_titles: the samplers' own cells are never broken.
    """
    table = Table(title=title, title_style="bold", header_style="bold", caption=SECONDS_NOTE, caption_justify="left")
    table.add_column("sampler", no_wrap=whole_titles)
    for name in names:
        table.add_column(name, justify="right")
    return table


def _text(console: Console, cell: RenderableType) -> Text:
    text = console.render_str(cell) if isinstance(cell, str) else cell
    return text.copy() if isinstance(text, Text) else Text(str(text))


def ascii_only(console: Console) -> bool:
    """Whether the terminal can't be trusted with more than ASCII."""
    return not console.encoding.lower().startswith("utf")
