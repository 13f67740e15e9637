"""What a comparison amounts to: means with intervals, paired differences, matched opponents, one JSON object."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from addiffusion.records import METRIC_NAMES, SCORE_NAMES
from evaluation.comparison.metric_table import SPENT, MetricTable, tier_correlation
from evaluation.numbers import json_number
from evaluation.seconds import SECONDS_NOTE
from evaluation.significance.holm import holm
from evaluation.significance.intervals import MINIMUM_COUNT
from evaluation.significance.paired import Comparison, NonInferiority, compare_if_enough, non_inferiority

QUALITY = (*METRIC_NAMES, *SCORE_NAMES)
"""Scores of every table, where they exist."""
_ROUNDING = 1e-6
"""Means that differ by no more are the same number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """Names of the contestants that spend what the agent spends."""

    equal_nfe: tuple[str, ...] = ()
    equal_time: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonResult:
    """A finished comparison."""

    agent: MetricTable
    others: Mapping[str, MetricTable]
    """Everyone else by name; ``full`` is among them."""
    matches: Matches = Matches()
    skipped: Mapping[str, str] = field(default_factory=dict[str, str])
    """Contestants that took no part, with the reason."""
    oracle_share: float | None = None
    """Of the oracle's gain in reward over the whole schedule; None where there is none, or no such oracle."""
    margin: float = 0.01
    """Largest loss that does not matter, as a share of the full run's mean score."""
    _found: dict[tuple[str, str], Comparison | None] = field(
        default_factory=dict[tuple[str, str], Comparison | None], init=False, repr=False
    )
    """Comparisons are resampled once, shown many times."""

    @property
    def full(self) -> MetricTable:
        """The agent's own schedule to its end."""
        return self.others["full"]

    @property
    def all(self) -> list[MetricTable]:
        """The agent first, then the others."""
        return [self.agent, *self.others.values()]

    def mean_spent(self, table: MetricTable, name: str, rows: NDArray[np.bool_] | None = None) -> float:
        """Mean of what images took: one of SPENT, or ``cost``, in passes of the full run's kind.

        Args:
            table: of one contestant.
            name: of the column.
            rows: (n,) of the cases; None: all.
        """
        if name != "cost":
            return table.mean(name, rows)
        full = self.full
        return table.mean("network_evals", rows) * full.mean("nfe") / full.mean("network_evals")

    @property
    def cost_differs(self) -> bool:
        """Whether somebody's cost is not NFE: by passes without guidance, or gradients."""
        return any(abs(self.mean_spent(one, "cost") - one.mean("nfe")) > _ROUNDING for one in self.all)

    def metrics(self) -> list[str]:
        """Quality scores that the agent has, in their order."""
        return [name for name in QUALITY if math.isfinite(self.agent.mean(name))]

    @property
    def knows_scenes(self) -> bool:
        """Whether the images were held against their captions exactly, as only the embedded world's can be."""
        return "scene_soft" in self.metrics()

    def against(self, name: str, metric: str) -> Comparison | None:
        """Agent minus a contestant, prompt by prompt; None with too few pairs."""
        key = (name, metric)
        if key not in self._found:
            other = self.others.get(name)
            self._found[key] = None if other is None else paired(self.agent, other, metric)
        return self._found[key]

    def non_inferiority(self, name: str, metric: str, *, ours: MetricTable | None = None) -> NonInferiority | None:
        """Whether the agent, or else ``ours``, loses less than the margin to a contestant; None where none can tell."""
        other = self.others.get(name)
        if other is None:
            return None
        margin = self.margin * abs(self.full.mean(metric))
        mine, theirs = (ours or self.agent).by_prompt(metric), other.by_prompt(metric)
        if not margin > 0 or int(np.isfinite(mine - theirs).sum()) < MINIMUM_COUNT:
            return None
        return non_inferiority(mine, theirs, margin=margin)


def paired(ours: MetricTable, theirs: MetricTable, metric: str) -> Comparison | None:
    """Difference of two contestants, seeds of a prompt averaged first; None with too few pairs."""
    mine, other = ours.by_prompt(metric), theirs.by_prompt(metric)
    return compare_if_enough(mine, other, name=f"{ours.contestant.title} - {theirs.contestant.title}", metric=metric)


def comparisons(result: ComparisonResult) -> list[Comparison]:
    """Agent against every contestant of its own league, by the first quality score and by CLIP."""
    metrics = list(dict.fromkeys([*result.metrics()[:1], "clip"]))
    rivals = [name for name, other in result.others.items() if other.contestant.kind not in ("oracle", "agent")]
    found = (result.against(name, metric) for metric in metrics for name in rivals)
    return [comparison for comparison in found if comparison is not None]


def summarise(result: ComparisonResult) -> dict[str, Any]:
    """Everything a program may want; null where there is no number."""
    agent = result.agent
    metrics = result.metrics()
    headline = _headline(result)
    return headline | {
        "images": int(agent.drawn.sum()),
        "prompts": len(np.unique(agent.prompt_id)),
        "repeats": round(len(agent.prompt_id) / max(1, len(np.unique(agent.prompt_id)))),
        "contestants": [_contestant(result, one, metrics) for one in result.all],
        "comparisons": _holm_rows(comparisons(result)),
        "against_ddim20": _rows_against(result, "ddim-20"),
        "non_inferiority": _non_inferiority(result),
        "equal_nfe": list(result.matches.equal_nfe),
        "equal_time": list(result.matches.equal_time),
        "skipped": dict(result.skipped),
        "dropped": {one.contestant.name: len(one.errors) for one in result.all if one.errors},
        "margin": result.margin,
        "seconds_note": SECONDS_NOTE,
    }


def _headline(result: ComparisonResult) -> dict[str, Any]:
    agent, full = result.agent, result.full
    scene, clip = result.against("full", "scene_soft"), result.against("full", "clip")
    chance = result.against("random-stop", result.metrics()[0] if result.metrics() else "clip")
    return {
        "mean_nfe": json_number(agent.mean("nfe")),
        "mean_cost": json_number(result.mean_spent(agent, "cost")),
        "mean_nfe_full": json_number(full.mean("nfe")),
        "nfe_saved": json_number(1 - agent.mean("nfe") / full.mean("nfe")),
        "scene_diff": None if scene is None else scene.difference,
        "scene_diff_ci": _bounds(scene),
        "clip_diff": None if clip is None else clip.difference,
        "clip_diff_ci": _bounds(clip),
        "scene_full": json_number(full.mean("scene_soft")),
        "clip_full": json_number(full.mean("clip")),
        "spearman_nfe_tier": json_number(tier_correlation(agent)),
        "oracle_share": result.oracle_share,
        "random_stop_diff": None if chance is None else chance.difference,
        "random_stop_diff_ci": _bounds(chance),
        "nfe_by_tier": {
            str(tier): json_number(agent.mean("nfe", agent.tier == tier)) for tier in np.unique(agent.tier).tolist()
        },
    }


def _contestant(result: ComparisonResult, table: MetricTable, metrics: Sequence[str]) -> dict[str, Any]:
    names = [*SPENT, *metrics, "dino_similarity"]
    tiers = [tier for tier in np.unique(table.tier).tolist() if tier > 0]
    categories = [name for name in table.scores if name.startswith("category_")]
    return {
        "name": table.contestant.name,
        "title": table.contestant.title,
        "kind": table.contestant.kind,
        "images": int(table.drawn.sum()),
        "dropped": len(table.errors),
        "c_nfe": table.contestant.c_nfe if table.contestant.policy is not None else None,
        "mean": {name: json_number(result.mean_spent(table, name)) for name in (*names, "cost")},
        "ci": {name: None if (found := table.interval(name)) is None else found.as_json() for name in names},
        "by_tier": {
            str(tier): {
                name: json_number(result.mean_spent(table, name, table.tier == tier)) for name in (*names, "cost")
            }
            for tier in tiers
        },
        "by_category": {name.removeprefix("category_"): json_number(table.mean(name)) for name in categories},
    }


def _holm_rows(found: Sequence[Comparison]) -> list[dict[str, Any]]:
    corrected = holm([one.p_value for one in found]) if found else np.zeros(0)
    return [
        {
            "name": one.name,
            "metric": one.metric,
            "difference": one.difference,
            "ci": _bounds(one),
            "p_value": one.p_value,
            "p_holm": float(p_holm),
            "count": one.count,
        }
        for one, p_holm in zip(found, corrected, strict=True)
    ]


def _rows_against(result: ComparisonResult, name: str) -> list[dict[str, Any]]:
    """Agent minus one contestant in every quality score, not corrected for their number."""
    found = ((metric, result.against(name, metric)) for metric in result.metrics())
    return [
        {"metric": metric, "difference": one.difference, "ci": _bounds(one), "p_value": one.p_value}
        for metric, one in found
        if one is not None
    ]


def _non_inferiority(result: ComparisonResult) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name in ("full", "ddim-50"):
        for metric in ("scene_soft", "clip"):
            found = result.non_inferiority(name, metric)
            if found is not None:
                rows.append(
                    {
                        "against": name,
                        "metric": metric,
                        "margin": found.margin,
                        "difference": found.difference,
                        "ci": found.interval.as_json(),
                        "p_value": found.p_value,
                        "established": found.established,
                    }
                )
    return rows


def _bounds(comparison: Comparison | None) -> list[float] | None:
    return None if comparison is None else comparison.interval.as_json()
