"""The standings in a terminal."""

from __future__ import annotations

from evaluation.comparison.columns import Columns
from evaluation.comparison.summary import Standings
from evaluation.comparison.tables import sections, spent_cells, standings_head
from evaluation.numbers import number_text
from evaluation.seconds import SECONDS_NOTE
from evaluation.tables import Table


def standings_table(standings: Standings) -> Table:
    """A row per contestant, in the sections of the written tables."""
    metrics = standings.metrics()
    count = len(standings.agent.nfe)
    table = Table(
        title=f"{count} images, same prompts and seeds in every row",
        title_style="bold",
        header_style="bold",
        caption=SECONDS_NOTE,
        caption_justify="left",
    )
    for name in standings_head(metrics):
        table.add_column(name, justify="left" if name == "sampler" else "right")
    for title, members in sections(standings):
        table.add_row(title, *[""] * (3 + len(metrics)), style="dim italic")
        for one in members:
            table.add_row(f"  {one.contestant.title}", *_cells(one, metrics), style=_emphasis(one, standings))
        table.add_section()
    for name, reason in standings.skipped.items():
        table.add_row(f"{name} skipped", *[""] * (3 + len(metrics)), style="dim")
        table.add_row(f"  {reason}", *[""] * (3 + len(metrics)), style="dim")
    return table


def _cells(columns: Columns, metrics: list[str]) -> list[str]:
    return [*spent_cells(columns), *(number_text(columns.mean(metric), 3) for metric in metrics)]


def _emphasis(columns: Columns, standings: Standings) -> str:
    return "bold" if columns is standings.agent else ""
