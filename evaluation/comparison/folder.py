"""What a finished comparison leaves in its folder: one table of all images, summary, tables, figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from addiffusion.files import write_text
from evaluation.comparison.contestants import EvalCase
from evaluation.comparison.plots import plot_pareto
from evaluation.comparison.results import ResultStore
from evaluation.comparison.sets import set_metrics
from evaluation.comparison.summary import ComparisonResult, comparisons, summarise
from evaluation.comparison.tables import (
    latex_standings,
    markdown_breakdown,
    markdown_categories,
    markdown_standings,
    spent_note,
)
from evaluation.significance.tables import latex_table, markdown_table

SUMMARY = "summary.json"


def finish_folder(
    path: Path, result: ComparisonResult, cases: Sequence[EvalCase], *, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write ``results.parquet``, ``summary.json``, tables and figures; the summary.

    Args:
        path: folder of the comparison.
        result: its outcome.
        cases: what was drawn.
        facts: added to the summary: which policy, which prompts, which command.
    """
    store = ResultStore(path)
    store.join([one.contestant.name for one in result.all if one.contestant.kind != "oracle"])
    summary = dict(facts) | summarise(result)
    for entry, one in zip(summary["contestants"], result.all, strict=True):
        entry["to_full"] = set_metrics(one, result.full, cases, store)
    write_text(path / SUMMARY, json.dumps(summary, indent=2) + "\n")
    write_text(path / "tables.md", _markdown(result))
    write_text(path / "standings.tex", latex_standings(result))
    found = comparisons(result)
    if found:
        write_text(path / "comparisons.tex", latex_table(found))
    for metric in result.metrics():
        plot_pareto(result, path / "plots" / f"pareto_{metric}.png", metric=metric)
    return summary


def _markdown(result: ComparisonResult) -> str:
    metric = next(iter(result.metrics()), "clip")
    found = comparisons(result)
    parts = [
        "# Standings\n",
        markdown_standings(result),
        f"{spent_note(result)}\n",
        "# Agent minus each\n",
        markdown_table(found) if found else "Too few prompts to compare.\n",
        "# By tier\n",
        markdown_breakdown(result, metric),
    ]
    categories = markdown_categories(result)
    return "\n".join([*parts, *(["# By kind of demand\n", categories] if categories else [])])
