"""The standings in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluation.comparison.across import RIVALS, RIVALS_WITHOUT, SettingRow, setting_cells, settings_head
from evaluation.comparison.metric_table import MetricTable
from evaluation.comparison.summary import ComparisonResult
from evaluation.comparison.tables import sections, spent_cells, spent_note, standings_head
from evaluation.numbers import number_text
from evaluation.tables import Table, samplers_table
from launch.comparing.across import Across


def standings_table(result: ComparisonResult) -> Table:
    """A row per contestant, in the sections of the written tables."""
    metrics = result.metrics()
    count = len(result.agent.nfe)
    title = f"{count} images, same prompts and seeds in every row"
    _, *heads = standings_head(result, metrics)
    table, blank = samplers_table(title, heads, whole_titles=False), [""] * len(heads)  # a reason for skipping is long
    table.caption = spent_note(result)
    for title, members in sections(result):
        table.add_row(title, *blank, style="dim italic")
        for one in members:
            table.add_row(f"  {one.contestant.title}", *_cells(result, one, metrics), style=_emphasis(one, result))
        table.add_section()
    for name, reason in result.skipped.items():
        table.add_row(f"{name} skipped", *blank, style="dim")
        table.add_row(f"  {reason}", *blank, style="dim")
    return table


def settings_tables(across: Across) -> list[Table]:
    """A row per policy where there are several, per action taken away, and per setting for each: as in settings.md."""
    several = len(across.rows) > 1
    tables = [_settings_table(across.policies, across.metric, "policy", "policies")] if several else []
    if across.without:
        tables.append(_settings_table(across.without, across.metric, "actions", "without an action", RIVALS_WITHOUT))
    for name, rows in across.rows.items():
        tables.append(_settings_table(rows, across.metric, "setting", name if several else "settings"))
    return tables


def _settings_table(
    rows: Sequence[SettingRow], metric: str, first: str, title: str, rivals: Mapping[str, str] = RIVALS
) -> Table:
    table = Table(title=f"{title}: same prompts and seeds in every row", box=None, header_style="bold")
    for name in settings_head(metric, first, rivals):
        table.add_column(name, justify="left" if name == first else "right")
    for row in rows:
        table.add_row(row.title, *setting_cells(row, (), rivals))
    return table


def _cells(result: ComparisonResult, table: MetricTable, metrics: list[str]) -> list[str]:
    return [*spent_cells(result, table), *(number_text(table.mean(metric), 3) for metric in metrics)]


def _emphasis(table: MetricTable, result: ComparisonResult) -> str:
    return "bold" if table is result.agent else ""
