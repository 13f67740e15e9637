"""What a run shows while it works: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from evaluation.tables import Table

Row = Mapping[str, float | int | None]
_SHOWN_ROWS = 14
_COLUMNS: Sequence[tuple[str, str, str]] = (
    ("iter", "iteration", "d"),
    ("reward", "return", "+.3f"),
    ("quality", "term_quality", "+.3f"),
    ("effic.", "term_efficiency", "+.3f"),
    ("final", "term_terminal", "+.3f"),
    ("NFE", "nfe", ".1f"),
    ("CLIP", "score_clip", ".3f"),
    ("aesth.", "score_aesthetic", ".2f"),
    ("pref.", "score_image_reward", "+.2f"),
    ("cont%", "continue_frac", "%"),
    ("stop%", "stop_frac", "%"),
    ("ref%", "refine_frac", "%"),
    ("ep/s", "episodes_per_s", ".1f"),
    ("ETA", "eta_s", "s"),
)


class RunView:
    """Shows progress, iterations and messages on one console."""

    def __init__(self, console: Console, *, iterations: int) -> None:
        self.console = console
        self._iterations = iterations
        self._rows: list[Row] = []
        self._live: Live | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the live table as it stands and go back to plain output."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, message: RenderableType) -> None:
        """One message or table, above whatever is live."""
        self.console.print(message, highlight=False)

    def iteration(self, row: Row) -> None:
        """Show a finished iteration."""
        self._rows.append(row)
        if not self.console.is_terminal:
            self._plain_line(row)
            return
        if self._live is None:
            self._live = Live(console=self.console, auto_refresh=False, transient=False)
            self._live.start()
        self._live.update(self._table(), refresh=True)

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar for ``total`` things; the block gets a function that says how many more are done."""
        self.stop()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        if not self.console.is_terminal:
            self.say(f"{label}: {total}")
            yield lambda _: None
            return
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(label, total=total)
            yield lambda count: bar.advance(task, count)
        self.say(f"{label}: {total}")

    def _plain_line(self, row: Row) -> None:
        if len(self._rows) == 1:
            self.console.print(" ".join(f"{title:>7}" for title, _, _ in _COLUMNS), highlight=False, soft_wrap=True)
        cells = " ".join(f"{_cell(row.get(name), form):>7}" for _, name, form in _COLUMNS)
        self.console.print(cells, highlight=False, soft_wrap=True)

    def _table(self) -> RenderableType:
        table = self._grid(self._rows[-_SHOWN_ROWS:])
        if not table.fits(self.console, self.console.options):
            table = self._grid(self._rows[-1:])  # a line per figure: room for one iteration
        return Group(self._headline(), table)

    def _grid(self, shown: Sequence[Row]) -> Table:
        table = Table(box=None, header_style="bold", padding=(0, 1), pad_edge=False)
        for title, _, _ in _COLUMNS:
            table.add_column(title, justify="right", no_wrap=True)
        for row in shown:
            cells = [_cell(row.get(name), form) for _, name, form in _COLUMNS]
            table.add_row(*cells, style="bold" if row is shown[-1] else "dim")
        return table

    def _headline(self) -> Text:
        done = int(self._rows[-1].get("iteration") or 0)
        width = 30
        filled = round(width * done / self._iterations)
        bar = Text("━" * filled, style="green") + Text("━" * (width - filled), style="bright_black")
        return Text("training ") + bar + Text(f" {done}/{self._iterations}")


def duration(seconds: float) -> str:
    """`12s`, `3m05`, `1h02`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}"


def _cell(value: float | int | None, form: str) -> str:
    if value is None:
        return "-"
    match form:
        case "%":
            return f"{100 * value:.0f}"
        case "s":
            return duration(value)
        case "d":
            return str(int(value))
        case _:
            return format(value, form)
