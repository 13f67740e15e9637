"""The held-out comparison as a table for people and as one JSON object for programs."""

from __future__ import annotations

from typing import Any

from evaluation.comparison.holdout import ArmResult, Holdout, action_fractions, collapse
from evaluation.numbers import json_number, number_text
from evaluation.seconds import SECONDS_NOTE
from evaluation.tables import Table

_COLUMNS = ("NFE", "evals", "scene", "strict", "CLIP", "s/image")


def holdout_table(holdout: Holdout) -> Table:
    """One block of rows per arm: all prompts first, then each tier."""
    count = len(holdout.full.episodes)
    table = Table(
        title=f"{count} held-out prompts, same seeds in every row",
        title_style="bold",
        header_style="bold",
        caption=SECONDS_NOTE,
        caption_justify="left",
    )
    table.add_column("sampler", no_wrap=True)
    for name in _COLUMNS:
        table.add_column(name, justify="right")
    tiers = holdout.full.tiers()
    for result in holdout.arms:
        table.add_row(result.arm.title, *_cells(result), style="bold" if result is holdout.policy else "")
        for tier in tiers if len(tiers) > 1 else ():
            table.add_row(f"  tier {tier}", *_cells(result.of_tier(tier))[:-1], "", style="dim")
        table.add_section()
    return table


def summary(holdout: Holdout) -> dict[str, Any]:
    """The numbers of the table by name; null where there is no number."""
    numbers: dict[str, Any] = {
        "mean_nfe": holdout.policy.mean_nfe(),
        "scene": holdout.policy.mean_score("scene_soft"),
        "scene_full": holdout.full.mean_score("scene_soft"),
        "clip": holdout.policy.mean_score("clip"),
        "clip_full": holdout.full.mean_score("clip"),
        "seconds": holdout.policy.seconds,
        "seconds_note": SECONDS_NOTE,
        "actions": action_fractions(holdout.policy.episodes),
        "episodes_dropped": sum(result.dropped_count for result in holdout.arms),
        "collapsed": collapse(holdout.policy.episodes) is not None,
        "mean_network_evals": holdout.policy.mean_network_evals(),
        "scene_strict": holdout.policy.mean_score("scene_strict"),
        "scene_strict_full": holdout.full.mean_score("scene_strict"),
        "seconds_full": holdout.full.seconds,
        "nfe_by_tier": {str(tier): holdout.policy.of_tier(tier).mean_nfe() for tier in holdout.policy.tiers()},
    }
    suffix = holdout.static.arm.title.replace("-", "").lower()
    numbers[f"scene_{suffix}"] = holdout.static.mean_score("scene_soft")
    numbers[f"clip_{suffix}"] = holdout.static.mean_score("clip")
    numbers[f"seconds_{suffix}"] = holdout.static.seconds
    return {name: json_number(value) for name, value in numbers.items()}


def _cells(result: ArmResult) -> tuple[str, ...]:
    return (
        number_text(result.mean_nfe(), 1),
        number_text(result.mean_network_evals(), 1),
        number_text(result.mean_score("scene_soft"), 3),
        number_text(result.mean_score("scene_strict"), 3),
        number_text(result.mean_score("clip"), 3),
        number_text(result.seconds, 3),
    )
