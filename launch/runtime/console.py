"""What commands show while they work: bars and a live table in a terminal, plain lines elsewhere, never silence."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from evaluation.tables import Table

SILENCE_S = 30.0
"""Longest time without a line where there is no terminal."""

UNSEEN = Console(quiet=True)
"""Of those who call from Python and look at nothing."""

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
    ("leap%", "leap_frac", "%"),
    ("ung%", "unguided_frac", "%"),
    ("redr%", "redraw_frac", "%"),
    ("ep/s", "episodes_per_s", ".1f"),
    ("ETA", "eta_s", "s"),
)
_SOME_RUNS = ("leap_frac", "unguided_frac", "redraw_frac")
"""Of policies that can do so."""


class Stage:
    """One long piece of work: a bar in a terminal; elsewhere a line where it begins, then one every ``SILENCE_S``.

    A line has what is done, the rate and the time left; it comes whether or not anything has advanced.
    """

    def __init__(
        self,
        console: Console,
        label: str,
        total: int | None = None,
        *,
        first: int = 0,
        headline: str | None = None,
        counted: Callable[[], int] | None = None,
    ) -> None:
        """``total`` things under ``label``; None where nobody knows how many.

        Args:
            console: where it is shown.
            label: what is done.
            total: how many things.
            first: how many were done before, which say nothing of the rate.
            headline: the line at the beginning, empty for none; by default label and total, where there is a total.
            counted: how many are done, asked whenever it is shown; None: whoever does them calls ``advance``.
        """
        self._console, self._label, self._total = console, label, total
        self._headline = f"{label}: {total}" if headline is None and total is not None else headline
        self._first = self._done = first
        self._counted = counted
        self._note = ""
        self._began = time.monotonic()
        self._due = self._began + SILENCE_S
        self._ended = threading.Event()
        self._watch: threading.Thread | None = None
        self._bar: Progress | None = None

    def advance(self, count: int = 1, note: str = "") -> None:
        """So many more are done; ``note`` says which."""
        self._done += count
        self.remark(note)

    def reach(self, done: int, note: str = "") -> None:
        """So many are done in all."""
        self._done = done
        self.remark(note)

    def remark(self, note: str) -> None:
        """What is at work now."""
        self._note = note
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done, description=self._described())

    def spoke(self) -> None:
        """Something else has been printed: the next line is due a while from now."""
        self._due = time.monotonic() + SILENCE_S

    def line(self) -> str:
        """What is done, the rate, and the time left."""
        elapsed = time.monotonic() - self._began
        done = self._done if self._counted is None else self._counted()
        parts = [] if self._total is None else [f"{done} of {self._total}"]
        if self._total is None or done <= self._first:
            parts.append(f"{duration(elapsed)} so far")
        else:
            each = elapsed / (done - self._first)
            rate = f"{duration(each)} each" if each > 1 else f"{1 / each:.1f}/s"
            parts += [rate, f"{duration(each * max(0, self._total - done))} left"]
        return f"{self._described()}: {', '.join(parts)}"

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                *(() if self._total is None else (MofNCompleteColumn(),)),
                TimeElapsedColumn(),
                *(() if self._total is None else (TimeRemainingColumn(),)),
                console=self._console,
                transient=True,
            )
            self._bar.add_task(self._label, total=self._total, completed=self._done)
            self._bar.start()
        else:
            self._print(self._headline)
        self._watch = threading.Thread(target=self._keep_watch, name="progress", daemon=True)
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._watch is not None:
            self._watch.join(timeout=SILENCE_S)
        if self._bar is not None:
            self._bar.stop()
            self._print(self._headline)

    def _keep_watch(self) -> None:
        while not self._ended.wait(max(0.01, min(1.0, self._due - time.monotonic()))):
            if self._bar is not None:
                if self._counted is not None:
                    self._bar.update(self._bar.task_ids[0], completed=self._counted())
            elif time.monotonic() >= self._due:
                self._print(self.line())

    def _described(self) -> str:
        return f"{self._label} ({self._note})" if self._note else self._label

    def _print(self, text: str | None) -> None:
        if text:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)
            self.spoke()


class RunView:
    """Shows progress, iterations and messages on one console."""

    def __init__(self, console: Console, *, iterations: int) -> None:
        self.console = console
        self._iterations = iterations
        self._rows: list[Row] = []
        self._live: Live | None = None
        self._training: Stage | None = None

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
        if self._training is not None:
            self._training.advance()
            self._training.spoke()
        if not self.console.is_terminal:
            self._plain_line(row)
            return
        if self._live is None:
            self._live = Live(console=self.console, auto_refresh=False, transient=False)
            self._live.start()
        self._live.update(self._table(), refresh=True)

    @contextmanager
    def progress(self, label: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """A stage of ``total`` things; the block gets a function that says how many more are done."""
        self.stop()
        with Stage(self.console, label, total) as stage:
            yield stage.advance

    @contextmanager
    def iterations(self, done: int) -> Iterator[None]:
        """The block's iterations, of which ``done`` were done before; a terminal has the table for them."""
        with ExitStack() as stack:
            if not self.console.is_terminal:
                stage = Stage(self.console, "training", self._iterations, first=done, headline="")
                self._training = stack.enter_context(stage)
            yield
        self._training = None

    def _plain_line(self, row: Row) -> None:
        columns = _columns(self._rows[0])
        if len(self._rows) == 1:
            self.console.print(" ".join(f"{title:>7}" for title, _, _ in columns), highlight=False, soft_wrap=True)
        cells = " ".join(f"{_cell(row.get(name), form):>7}" for _, name, form in columns)
        self.console.print(cells, highlight=False, soft_wrap=True)

    def _table(self) -> RenderableType:
        table = self._grid(self._rows[-_SHOWN_ROWS:])
        if not table.fits(self.console, self.console.options):
            table = self._grid(self._rows[-1:])  # a line per figure: room for one iteration
        return Group(self._headline(), table)

    def _grid(self, shown: Sequence[Row]) -> Table:
        table = Table(box=None, header_style="bold", padding=(0, 1), pad_edge=False)
        columns = _columns(shown[-1])
        for title, _, _ in columns:
            table.add_column(title, justify="right", no_wrap=True)
        for row in shown:
            cells = [_cell(row.get(name), form) for _, name, form in columns]
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


def _columns(row: Row) -> list[tuple[str, str, str]]:
    return [one for one in _COLUMNS if one[1] not in _SOME_RUNS or one[1] in row]


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
