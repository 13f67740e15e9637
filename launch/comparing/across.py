"""`addiffusion evaluate --guidance ... --steps ...`: a comparison for each setting, and one table over all of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console

from addiffusion.files import write_text
from addiffusion.policy_files import read_policy
from evaluation.comparison.across import SettingRow, markdown_settings, setting_rows
from evaluation.comparison.summary import ComparisonResult
from launch.comparing.evaluate import evaluate, folder_of
from launch.comparing.orders import EvaluateOrder
from launch.runtime.build import build_components
from launch.runtime.components import Roles


@dataclass(frozen=True, slots=True, kw_only=True)
class Across:
    """A policy at every setting that was asked for."""

    path: Path
    metric: str
    rows: tuple[SettingRow, ...]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {"metric": self.metric, "settings": [row.as_json() for row in self.rows]}


def evaluate_across(
    order: EvaluateOrder, *, overrides: Sequence[str], console: Console, roles: Roles = build_components
) -> Across:
    """Compare at each setting in a folder of its own, then write ``settings.md`` and ``settings.json`` beside them.

    Args:
        order: what to compare; its ``guidance`` and ``steps`` span the settings.
        overrides: go over the policy's own configuration.
        console: where progress is shown.
        roles: who rolls out and scores.

    Raises:
        UsageError: policy, prompts, samplers, settings or folder can't be used.
        RolloutError: images could not be finished.
    """
    settings, policy = settings_of(order), read_policy(order.policy)
    for _, _, keys in settings:
        policy.config([*overrides, *keys])  # refused before anything is drawn
    path = folder_of(order)
    results: dict[str, ComparisonResult] = {}
    for title, name, keys in settings:
        console.print(f"setting {len(results) + 1}: {title}", highlight=False)
        alone = replace(order, out=path / name, guidance=(), steps=())
        done = evaluate(alone, overrides=[*overrides, *keys], console=console, roles=roles)
        results[title] = done.result
    metric = next(iter(next(iter(results.values())).metrics()), "clip")
    across = Across(path=path, metric=metric, rows=tuple(setting_rows(results, metric)))
    write_text(path / "settings.json", json.dumps(across.as_json(), indent=2) + "\n")
    write_text(path / "settings.md", f"# Settings\n\n{markdown_settings(across.rows, metric)}")
    return across


def settings_of(order: EvaluateOrder) -> list[tuple[str, str, list[str]]]:
    """Title, folder and overrides of each setting, in the order in which they were asked for."""
    guidance = [
        (f"guidance {scale:g}", f"g{scale:g}", f"backbone.guidance_scale={scale!r}")
        for scale in dict.fromkeys(order.guidance)
    ]
    steps = [(f"{count} steps", f"s{count}", f"sampler.num_steps={count}") for count in dict.fromkeys(order.steps)]
    parts = [axis for axis in (guidance, steps) if axis]
    return [
        (", ".join(one[0] for one in chosen), "-".join(one[1] for one in chosen), [one[2] for one in chosen])
        for chosen in product(*parts)
    ]
