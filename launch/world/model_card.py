"""`addiffusion embedded card`: the built-in world measured from its weights, with something to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from evaluation.model_card.model_card import measure_card
from evaluation.model_card.page import write_page
from evaluation.model_card.plan import CardPlan
from evaluation.model_card.targets import Target, targets
from evaluation.tables import Table
from launch.runtime.console import Stage


def run_card(plan: CardPlan, *, page: Path | None, console: Console) -> dict[str, Any]:
    """Measure, show the targets, write the page when one is asked for, and return every figure.

    Raises:
        WeightsError: a part of the weights is missing.
    """
    with Stage(console, "passes", plan.passes) as stage:
        card, runner = measure_card(plan, lambda what, passes: stage.advance(passes, what))
        files = write_page(card, runner, page) if page is not None else []
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
