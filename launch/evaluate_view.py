"""The standings in a terminal."""

from __future__ import annotations

import math

from evaluation.comparison.columns import Columns
from evaluation.comparison.summary import Standings
from evaluation.comparison.tables import METRIC_TITLES, sections
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
    table.add_column("sampler")
    for name in ("NFE", "evals", "s/image", *(METRIC_TITLES.get(metric, metric) for metric in metrics)):
        table.add_column(name, justify="right")
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
    spent = ((columns.mean("nfe"), 1), (columns.mean("network_evals"), 1), (columns.mean("seconds"), 3))
    values = (*spent, *((columns.mean(metric), 3) for metric in metrics))
    return [f"{value:.{digits}f}" if math.isfinite(value) else "-" for value, digits in values]


def _emphasis(columns: Columns, standings: Standings) -> str:
    return "bold" if columns is standings.agent else ""
