"""`addiffusion embedded card`: the built-in world measured from its weights, with something to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from evaluation.card.card import measure_card
from evaluation.card.page import write_page
from evaluation.card.plan import CardPlan
from evaluation.card.targets import Target, targets
from evaluation.tables import Table


def run_card(plan: CardPlan, *, page: Path | None, console: Console) -> dict[str, Any]:
    """Measure, show the targets, write the page when one is asked for, and return every figure.

    Raises:
        WeightsError: a part of the weights is missing.
    """
    bars = Progress(
        TextColumn("{task.description:16}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    with bars:
        task = bars.add_task("cost", total=plan.passes)

        def advance(what: str, passes: int) -> None:
            bars.update(task, description=what, advance=passes)

        card, studio = measure_card(plan, advance)
        files = write_page(card, studio, page) if page is not None else []
    console.print(_targets_table(targets(card)))
    for file in files:
        console.print(f"wrote {file}", highlight=False, soft_wrap=True)
    return card.as_json()


def _targets_table(rows: tuple[Target, ...]) -> Table:
    table = Table(title="the embedded world")
    for head in ("target", "asked", "reached", ""):
        table.add_column(head)
    for target in rows:
        name, asked, reached, _ = target.row()
        table.add_row(name, asked, reached, "met" if target.met else "not met", style="" if target.met else "yellow")
    return table
