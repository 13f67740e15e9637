"""The held-out comparison as a table for people and as one JSON object for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evaluation.comparison.held_out import STATIC, HeldOut, action_fractions, collapse
from evaluation.comparison.metric_table import MetricTable
from evaluation.comparison.summary import ComparisonResult
from evaluation.numbers import json_number, number_text
from evaluation.seconds import SECONDS_NOTE
from evaluation.tables import Table, samplers_table

_PASSES = (("NFE", "nfe", 1), ("evals", "network_evals", 1))
_COST = ("cost", "cost", 1)
_SCENE = (("scene", "scene_soft", 3), ("strict", "scene_strict", 3), ("CLIP", "clip", 3))
_REAL = (("CLIP", "clip", 3), ("aesth.", "aesthetic", 2), ("pref.", "image_reward", 2))
"""Scores of images that no checker knows."""
_SECONDS = ("s/image", "seconds", 3)


def held_out_table(result: ComparisonResult) -> Table:
    """One block of rows per contestant: all prompts first, then each tier."""
    count, tiers = int(result.full.drawn.sum()), result.full.tiers()
    title = f"{count} held-out prompts, same seeds in every row"
    cost = (_COST,) if result.cost_differs else ()
    columns = (*_PASSES, *cost, *(_SCENE if result.knows_scenes else _REAL), _SECONDS)
    table = samplers_table(title, (head for head, _, _ in columns))
    for one in result.all:
        table.add_row(one.contestant.title, *_cells(result, one, columns), style="bold" if one is result.agent else "")
        for tier in tiers if len(tiers) > 1 else ():
            table.add_row(f"  tier {tier}", *_cells(result, one, columns, tier)[:-1], "", style="dim")
        table.add_section()
    return table


def summary(held_out: HeldOut) -> dict[str, Any]:
    """The numbers of the table by name; null where there is no number."""
    policy, full, static = held_out.result.agent, held_out.result.full, held_out.result.others[STATIC]
    numbers: dict[str, Any] = {
        "mean_nfe": policy.mean("nfe"),
        "scene": policy.mean("scene_soft"),
        "scene_full": full.mean("scene_soft"),
        "clip": policy.mean("clip"),
        "clip_full": full.mean("clip"),
        "seconds": policy.mean("seconds"),
        "seconds_full_queue": policy.mean("seconds_full_queue"),
        "seconds_note": SECONDS_NOTE,
        "actions": action_fractions(held_out.episodes),
        "episodes_dropped": sum(len(one.errors) for one in held_out.result.all),
        "collapsed": collapse(held_out.episodes) is not None,
        "mean_network_evals": policy.mean("network_evals"),
        "mean_cost": held_out.result.mean_spent(policy, "cost"),
        "scene_strict": policy.mean("scene_strict"),
        "scene_strict_full": full.mean("scene_strict"),
        "seconds_full": full.mean("seconds"),
        "nfe_by_tier": {str(tier): nfe for tier, nfe in policy.mean_by_tier("nfe").items()},
    }
    suffix = static.contestant.title.replace("-", "").lower()
    numbers[f"scene_{suffix}"] = static.mean("scene_soft")
    numbers[f"clip_{suffix}"] = static.mean("clip")
    numbers[f"seconds_{suffix}"] = static.mean("seconds")
    return {name: json_number(value) for name, value in numbers.items()}


def _cells(
    result: ComparisonResult, table: MetricTable, columns: Sequence[tuple[str, str, int]], tier: int | None = None
) -> list[str]:
    rows = None if tier is None else table.tier == tier
    return [number_text(result.mean_spent(table, name, rows), digits) for _, name, digits in columns]
