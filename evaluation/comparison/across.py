"""One policy at several settings: where it holds, where it does not, and what it is worth on average over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from evaluation.comparison.metric_table import MetricTable
from evaluation.comparison.summary import ComparisonResult
from evaluation.comparison.tables import METRIC_TITLES
from evaluation.numbers import json_number, number_text
from evaluation.significance.paired import Comparison, NonInferiority, compare_if_enough
from evaluation.significance.tables import escape_markdown, pipe_table

FULL: Final = "full"
STATIC: Final = "static"
"""Best static sampler of a setting at the agent's NFE."""
RIVALS: Final = {
    FULL: "its whole schedule",
    "mean-stop": "fixed stop",
    "refined-stop": "fixed stop after one refine",
    "random-stop": "random stop",
    STATIC: "best static sampler at its NFE",
}
"""Who the agent is compared with, all but the first at its own mean NFE."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingRow:
    """The agent at one setting, or on average over all of them."""

    title: str
    nfe: float
    share: float
    """Of the NFE of the whole schedule."""
    score: float
    against: Mapping[str, Comparison]
    """By rival, where enough prompts have both scores."""
    to_full: NonInferiority | None
    """Whether it loses less than the margin against the whole schedule."""

    def as_json(self) -> dict[str, Any]:
        """For programs; null where there is no number."""
        return {
            "setting": self.title,
            "nfe": json_number(self.nfe),
            "nfe_share": json_number(self.share),
            "score": json_number(self.score),
            "against": {name: one.as_json() for name, one in self.against.items()},
            "holds": None if self.to_full is None else self.to_full.established,
        }


def setting_rows(results: Mapping[str, ComparisonResult], metric: str) -> list[SettingRow]:
    """A row for each setting, and one for their mean where there are several.

    Args:
        results: comparisons of the same prompts and seeds, by the title of their setting.
        metric: the score that is compared.
    """
    rows = [_row(title, result, metric) for title, result in results.items()]
    return [*rows, _mean_row(list(results.values()), rows, metric)] if len(rows) > 1 else rows


def markdown_settings(rows: Sequence[SettingRow], metric: str) -> str:
    """A pipe table: what the agent spends and scores, and its difference to each rival with 95 % intervals."""
    return pipe_table(settings_head(metric), [[escape_markdown(row.title), *setting_cells(row)] for row in rows])


def settings_head(metric: str) -> list[str]:
    """Heads of the columns."""
    spent = ["setting", "NFE", "of full", METRIC_TITLES.get(metric, metric), "holds"]
    return [*spent, *(f"minus {title}" for title in RIVALS.values())]


def setting_cells(row: SettingRow) -> list[str]:
    """A row under ``settings_head``, without its title."""
    holds = "-" if row.to_full is None else "yes" if row.to_full.established else "no"
    found = (row.against.get(name) for name in RIVALS)
    differences = ("-" if one is None else one.brief() for one in found)
    return [number_text(row.nfe, 1), f"{row.share:.0%}", number_text(row.score, 3), holds, *differences]


def _row(title: str, result: ComparisonResult, metric: str) -> SettingRow:
    found = {name: result.against(one.contestant.name, metric) for name, one in _rivals(result, metric).items()}
    nfe = result.agent.mean("nfe")
    return SettingRow(
        title=title,
        nfe=nfe,
        share=nfe / result.full.mean("nfe"),
        score=result.agent.mean(metric),
        against={name: one for name, one in found.items() if one is not None},
        to_full=result.non_inferiority(FULL, metric),
    )


def _rivals(result: ComparisonResult, metric: str) -> dict[str, MetricTable]:
    found = {name: result.others[name] for name in RIVALS if name in result.others}
    static = [result.others[name] for name in result.matches.equal_nfe]
    return found | ({STATIC: max(static, key=lambda one: one.mean(metric))} if static else {})


def _mean_row(results: Sequence[ComparisonResult], rows: Sequence[SettingRow], metric: str) -> SettingRow:
    """Scores of a prompt are averaged over settings first: they are no independent draws."""
    ours = np.mean([result.agent.by_prompt(metric) for result in results], axis=0)
    rivals = [_rivals(result, metric) for result in results]
    found: dict[str, Comparison] = {}
    for name, title in RIVALS.items():
        if all(name in one for one in rivals):
            theirs = np.mean([one[name].by_prompt(metric) for one in rivals], axis=0)
            compared = compare_if_enough(ours, theirs, name=f"agent - {title}", metric=metric)
            found |= {} if compared is None else {name: compared}
    return SettingRow(
        title="mean",
        nfe=float(np.mean([row.nfe for row in rows])),
        share=float(np.mean([row.share for row in rows])),
        score=float(np.mean([row.score for row in rows])),
        against=found,
        to_full=None,
    )
