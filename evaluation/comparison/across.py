"""One policy at several settings: where it holds, where it does not, and what it is worth on average over them."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from evaluation.comparison.metric_table import MetricTable
from evaluation.comparison.summary import ComparisonResult
from evaluation.comparison.tables import METRIC_TITLES
from evaluation.comparison.without import WITHOUT
from evaluation.numbers import json_number, number_text
from evaluation.significance.holm import holm
from evaluation.significance.paired import Comparison, compare_if_enough
from evaluation.significance.tables import escape_markdown, pipe_table

_ALPHA = 0.05
FULL: Final = "full"
STATIC: Final = "static"
"""Best static sampler of a setting at the agent's NFE."""
STATIC_ANYWHERE: Final = "static-anywhere"
"""The same, of all guidance scales: chosen by these very images, which is in its favour."""
RIVALS: Final = {
    FULL: "its whole schedule",
    "mean-stop": "fixed stop",
    "refined-stop": "fixed stop after one refine",
    "random-stop": "random stop",
    STATIC: "best static sampler at its NFE",
    STATIC_ANYWHERE: "the same at its best guidance scale",
}
"""Who the agent is compared with, all but the first at its own mean NFE."""
WHOLE: Final = "agent"
RIVALS_WITHOUT: Final = {FULL: RIVALS[FULL], WHOLE: "the policy with all its actions"}
"""Who the agent without an action is compared with."""


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
    most: float
    """NFE of its dearest image."""
    holds: tuple[int, int] | None
    """In how many of how many comparisons with the whole schedule it is shown to lose less than the margin."""

    def as_json(self) -> dict[str, Any]:
        """For programs; null where there is no number."""
        return {
            "setting": self.title,
            "nfe": json_number(self.nfe),
            "nfe_share": json_number(self.share),
            "score": json_number(self.score),
            "against": {name: one.as_json() for name, one in self.against.items()},
            "greatest_nfe": json_number(self.most),
            "holds": None if self.holds is None else list(self.holds),
        }


def rows_across(
    results: Mapping[str, Mapping[str, ComparisonResult]], metric: str
) -> tuple[dict[str, list[SettingRow]], list[SettingRow]]:
    """Rows of the settings by policy, with their mean where there are several; and one for each policy, likewise.

    Args:
        results: by the name of the policy, then by the title of the setting; all of the same prompts and seeds.
        metric: the score that is compared.
    """
    members = {
        name: [
            _Member(result, result.agent, _rivals(result, [*of_policy.values()], metric))
            for result in of_policy.values()
        ]
        for name, of_policy in results.items()
    }
    settings = {
        name: _with_mean(
            [_row(title, [one], metric) for title, one in zip(results[name], own, strict=True)], own, metric
        )
        for name, own in members.items()
    }
    policies = [replace(rows[-1], title=name) for name, rows in settings.items()]
    return settings, _with_mean(policies, [one for own in members.values() for one in own], metric)


def rows_without(results: Mapping[str, Mapping[str, ComparisonResult]], metric: str) -> list[SettingRow]:
    """The agent with all its actions, then without some, on average over settings and policies; none if none was asked.

    Args:
        results: as of ``rows_across``.
        metric: the score that is compared.
    """
    every = [one for of_policy in results.values() for one in of_policy.values()]
    names = [name for name in every[0].others if name.startswith(WITHOUT) and all(name in one.others for one in every)]
    if not names:
        return []
    rows = [_row("all actions", [_Member(one, one.agent, {FULL: one.full}) for one in every], metric)]
    for name in names:
        members = [_Member(one, one.others[name], {FULL: one.full, WHOLE: one.agent}) for one in every]
        rows.append(_row(members[0].ours.contestant.title, members, metric))
    return rows


def _with_mean(rows: list[SettingRow], members: Sequence[_Member], metric: str) -> list[SettingRow]:
    return [*rows, _row("mean", members, metric)] if len(rows) > 1 else rows


def significant(rows: Sequence[SettingRow]) -> set[tuple[str, str]]:
    """(title, rival) of the differences that are none by chance: of all in these rows, corrected by Holm, at 5 %."""
    found = [(row.title, name, one.p_value) for row in rows for name, one in row.against.items()]
    corrected = holm([p_value for *_, p_value in found]) if found else []
    return {(title, name) for (title, name, _), p_value in zip(found, corrected, strict=True) if p_value <= _ALPHA}


def markdown_settings(
    rows: Sequence[SettingRow], metric: str, *, first: str = "setting", rivals: Mapping[str, str] = RIVALS
) -> str:
    """A pipe table: what the agent spends and scores, and its difference to each rival with 95 % intervals.

    Args:
        rows: in their order.
        metric: the score that is compared.
        first: heading of the first column.
        rivals: who it is compared with.
    """
    strong = significant(rows)
    lines = [[escape_markdown(row.title), *setting_cells(row, strong, rivals)] for row in rows]
    return pipe_table(settings_head(metric, first, rivals), lines)


def settings_head(metric: str, first: str = "setting", rivals: Mapping[str, str] = RIVALS) -> list[str]:
    """Heads of the columns."""
    spent = [first, "NFE", "of full", "most NFE", METRIC_TITLES.get(metric, metric), "holds"]
    return [*spent, *(f"minus {title}" for title in rivals.values())]


def setting_cells(
    row: SettingRow, strong: Container[tuple[str, str]] = (), rivals: Mapping[str, str] = RIVALS
) -> list[str]:
    """A row under ``settings_head``, without its title; differences in ``strong`` between stars."""
    count, total = row.holds or (0, 0)
    holds = {0: "-", 1: ("no", "yes")[count > 0]}.get(total, f"{count} of {total}")
    spent = [number_text(row.nfe, 1), f"{row.share:.0%}", number_text(row.most, 0), number_text(row.score, 3), holds]
    for name in rivals:
        found = row.against.get(name)
        text = "-" if found is None else found.brief()
        spent.append(f"**{text}**" if (row.title, name) in strong else text)
    return spent


@dataclass(frozen=True, slots=True)
class _Member:
    """A comparison, who of it a row is about, and the rivals of those."""

    result: ComparisonResult
    ours: MetricTable
    rivals: Mapping[str, MetricTable]


def _rivals(result: ComparisonResult, peers: Sequence[ComparisonResult], metric: str) -> dict[str, MetricTable]:
    """By name; the best static sampler at any guidance scale is that of the peers of as many steps."""
    steps = result.agent.contestant.sampler.num_steps
    anywhere = [one for one in peers if one.agent.contestant.sampler.num_steps == steps]
    found = {name: result.others[name] for name in RIVALS if name in result.others}
    for name, among in ((STATIC, [result]), (STATIC_ANYWHERE, anywhere if len(anywhere) > 1 else [])):
        static = [one.others[sampler] for one in among for sampler in one.matches.equal_nfe]
        found |= {name: max(static, key=lambda one: one.mean(metric))} if static else {}
    return found


def _row(title: str, members: Sequence[_Member], metric: str) -> SettingRow:
    """One row about some comparisons; a prompt's scores are averaged over them first: they are no independent draws."""
    agents = [one.ours for one in members]
    ours = np.mean([agent.by_prompt(metric) for agent in agents], axis=0)
    found: dict[str, Comparison] = {}
    for name, words in {**RIVALS, **RIVALS_WITHOUT}.items():
        if all(name in one.rivals for one in members):
            theirs = np.mean([one.rivals[name].by_prompt(metric) for one in members], axis=0)
            compared = compare_if_enough(ours, theirs, name=f"agent - {words}", metric=metric)
            found |= {} if compared is None else {name: compared}
    held = (member.result.non_inferiority(FULL, metric, ours=member.ours) for member in members)
    told = [one for one in held if one is not None]
    return SettingRow(
        title=title,
        nfe=float(np.mean([agent.mean("nfe") for agent in agents])),
        share=float(np.mean([one.ours.mean("nfe") / one.result.full.mean("nfe") for one in members])),
        most=float(max(np.nanmax(agent.nfe) for agent in agents)),
        score=float(np.mean([agent.mean(metric) for agent in agents])),
        against=found,
        holds=(sum(one.established for one in told), len(told)) if told else None,
    )
