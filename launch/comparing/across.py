"""`addiffusion evaluate` for several settings or policies: a comparison for each pair, tables and a plot over all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console

from addiffusion.errors import UsageError
from addiffusion.files import write_text
from addiffusion.policy_files import TrainedPolicy, read_policy
from evaluation.comparison.across import RIVALS_WITHOUT, SettingRow, markdown_settings, rows_across, rows_without
from evaluation.comparison.forest import FOREST, plot_settings
from evaluation.comparison.summary import ComparisonResult
from launch.comparing.comparison_orders import EvaluateOrder
from launch.comparing.evaluate import evaluate, folder_of
from launch.runtime.build import build_components
from launch.runtime.components import Roles


@dataclass(frozen=True, slots=True, kw_only=True)
class Across:
    """Policies at every setting that was asked for."""

    path: Path
    metric: str
    rows: Mapping[str, Sequence[SettingRow]]
    """Of the settings, by policy."""
    policies: Sequence[SettingRow]
    """One for each policy, on average over its settings, and their mean."""
    without: Sequence[SettingRow] = ()
    """With all actions, and without those that were to be taken away, on average over settings and policies."""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "metric": self.metric,
            "settings": {name: [row.as_json() for row in rows] for name, rows in self.rows.items()},
            "policies": [row.as_json() for row in self.policies],
        } | ({"without": [row.as_json() for row in self.without]} if self.without else {})


def evaluate_across(
    order: EvaluateOrder, *, overrides: Sequence[str], console: Console, roles: Roles = build_components
) -> Across:
    """Compare at each setting in a folder of its own, then write tables over them as Markdown and JSON, and a plot.

    All policies draw the prompts and seeds of the first one's run; who depends on no policy is drawn once.

    Args:
        order: what to compare; its ``guidance`` and ``steps`` span the settings.
        overrides: go over each policy's own configuration.
        console: where progress is shown.
        roles: who rolls out and scores.

    Raises:
        UsageError: policies, prompts, samplers, settings or folder can't be used.
        RolloutError: images could not be finished.
    """
    settings, policies = settings_of(order), _policies(order)
    first = next(iter(policies.values()))[1].config(list(overrides))
    overrides = [f"run.seed={first.run.seed}", *overrides]
    for _, policy in policies.values():
        for _, _, keys in settings:
            policy.config([*overrides, *keys])  # refused before anything is drawn
    path = folder_of(order)
    found: dict[str, dict[str, ComparisonResult]] = {name: {} for name in policies}
    pairs = list(product(policies.items(), settings))
    for number, ((name, (source, _)), (title, folder, keys)) in enumerate(pairs, 1):
        console.print(f"comparison {number} of {len(pairs)}: {name}{title and f', {title}'}", highlight=False)
        alone = replace(order, policies=(source,), out=_home(path, name, policies) / folder, guidance=(), steps=())
        lenders = [_home(path, other, policies) / folder for other in policies if other != name]
        done = evaluate(alone, overrides=[*overrides, *keys], console=console, roles=roles, lenders=lenders)
        found[name][title] = done.result
    metric = next(
        (metric for of_policy in found.values() for one in of_policy.values() for metric in one.metrics()), "clip"
    )
    rows, rows_of_policies = rows_across(found, metric)
    across = Across(path=path, metric=metric, rows=rows, policies=rows_of_policies, without=rows_without(found, metric))
    write_text(path / "settings.json", json.dumps(across.as_json(), indent=2) + "\n")
    write_text(path / "settings.md", f"# Settings\n\n{markdown_across(across)}\n![]({FOREST})\n")
    plot_settings(rows, rows_of_policies, path / FOREST, metric=metric)
    return across


def markdown_across(across: Across) -> str:
    """A table over the policies where there are several, one over actions taken away, and one over settings of each."""
    parts = []
    if len(across.rows) > 1:
        parts.append(markdown_settings(across.policies, across.metric, first="policy"))
    if across.without:
        parts.append(markdown_settings(across.without, across.metric, first="actions", rivals=RIVALS_WITHOUT))
    for name, rows in across.rows.items():
        head = f"**{name}**\n\n" if len(across.rows) > 1 else ""
        parts.append(head + markdown_settings(rows, across.metric))
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def settings_of(order: EvaluateOrder) -> list[tuple[str, str, list[str]]]:
    """Title, folder and overrides of each setting, in the order in which they were asked for; one without any."""
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


def _policies(order: EvaluateOrder) -> dict[str, tuple[str, TrainedPolicy]]:
    """What was asked for and what it is, by the name of its folder.

    Raises:
        UsageError: two policies have one name.
    """
    found: dict[str, tuple[str, TrainedPolicy]] = {}
    for source in dict.fromkeys(order.policies):
        name = Path(source).name
        if name in found:
            raise UsageError(
                f"--policy {source} and --policy {found[name][0]} would share the folder {name}: rename one of them.",
                policy=source,
            )
        found[name] = source, read_policy(source)
    return found


def _home(path: Path, name: str, policies: Mapping[str, object]) -> Path:
    return path / name if len(policies) > 1 else path
