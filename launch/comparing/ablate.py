"""`addiffusion ablate`: one training per variant of a study, and a table of what each is worth."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console

from addiffusion.checkpoint_files import list_checkpoints
from addiffusion.configuration.files import load_config, shipped_files
from addiffusion.configuration.yaml import read_yaml
from addiffusion.errors import ConfigError
from addiffusion.files import write_text
from evaluation.seconds import SECONDS_NOTE
from evaluation.tables import Table
from launch.comparing.orders import AblateOrder
from launch.runtime.build import build_components
from launch.runtime.components import Roles
from launch.runtime.folder_lock import locked
from launch.training.preflight import Plan, prepare
from launch.training.train import run as train

_COLUMNS = ("mean_nfe", "scene", "scene_difference", "clip", "nfe_tier_spearman", "seconds", "episodes_per_s")
Prepare = Callable[[Sequence[Path], Sequence[str]], Plan]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """One question and the trainings that answer it."""

    name: str
    question: str
    variants: Mapping[str, tuple[str, ...]]
    """Overrides of each variant by its title; the first one is what the others are read against."""


def shipped_ablations() -> tuple[str, ...]:
    """Names of the studies that ship."""
    return tuple(sorted(file.stem for file in (shipped_files()[0].parent / "ablations").glob("*.yaml")))


def load_ablation(name: str) -> Ablation:
    """A shipped study by its name, or one of the user's by its file.

    Raises:
        ConfigError: there is none, it has no variants, or one of them can't be used.
    """
    file = shipped_files()[0].parent / "ablations" / f"{name}.yaml"
    if not file.is_file():
        file = Path(name)
        if file.suffix != ".yaml":
            known = ", ".join(shipped_ablations())
            raise ConfigError(f"There is no ablation called {name!r}: choose from {known}, or give a .yaml file.")
    tree = read_yaml(file)
    variants = tree.get("variants")
    if not isinstance(variants, dict) or not variants or not all(isinstance(one, list) for one in variants.values()):
        raise ConfigError(f"{file} has no variants: give `variants: {{title: [key=value, ...]}}`.", file=str(file))
    ablation = Ablation(
        name=file.stem,
        question=str(tree.get("question", file.stem)),
        variants={str(title): tuple(map(str, changes)) for title, changes in variants.items()},
    )
    for changes in ablation.variants.values():
        load_config([], changes)
    return ablation


def ablate(
    ablation: Ablation,
    order: AblateOrder,
    *,
    overrides: Sequence[str] = (),
    console: Console,
    roles: Roles = build_components,
    plan: Prepare = prepare,
) -> list[dict[str, Any]]:
    """Train what is not trained yet, and collect the results; one row per seed and variant.

    The variants take turns, seed by seed, because a machine's pace changes with the hour.

    Args:
        ablation: what ``order.study`` names.
        order: where to, from which bank, and how many seeds.
        overrides: configuration of all variants.
        console: where progress is shown.
        roles: who rolls out, scores and learns.
        plan: checks one training.

    Raises:
        UsageError: a variant can't be trained as configured.
        RolloutError: images could not be finished.
    """
    home = order.out or Path("runs") / f"ablate-{ablation.name}"
    bank = [] if order.bank is None else [f"warm_start.bank={order.bank}"]
    rows: list[dict[str, Any]] = []
    with locked(home):
        for seed, (title, changes) in product(range(order.seeds), ablation.variants.items()):
            folder = home / f"{_slug(title)}-{seed}"
            if not (folder / "result.json").is_file():
                console.rule(folder.name)
                settings = _settings(folder, [f"run.seed={seed}", *bank, *overrides, *changes])
                if train(plan([], settings), console=console, roles=roles).interrupted:
                    return rows
            result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
            rows.append({"variant": title, "seed": seed, **result})
            write_text(home / "ablation.json", json.dumps({"question": ablation.question, "rows": rows}))
    return rows


def ablation_table(ablation: Ablation, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Means over seeds, one line per variant; the difference is policy minus its own whole schedule."""
    table = Table(
        title=ablation.question, title_style="bold", header_style="bold", caption=SECONDS_NOTE, caption_justify="left"
    )
    table.add_column("variant")
    for name in ("NFE", "scene", "against full", "CLIP", "NFE and tier", "s/image", "episodes/s", "collapsed"):
        table.add_column(name, justify="right")
    for title in ablation.variants:
        of_variant = [row for row in rows if row["variant"] == title]
        if of_variant:
            collapsed = sum(bool(row["collapsed"]) for row in of_variant)
            cells = [_mean_text(of_variant, name) for name in _COLUMNS]
            table.add_row(title, *cells, f"{collapsed} of {len(of_variant)}")
    return table


def _settings(folder: Path, changes: Sequence[str]) -> list[str]:
    """Overrides of one training: a new one, or one to go on with."""
    if not folder.is_dir():
        return [f"run.dir={folder}", *changes]
    if not list_checkpoints(folder):
        raise ConfigError(f"{folder} was begun and has no checkpoint to go on from: delete it.", path=str(folder))
    return [f"resume={folder}"]


def _mean_text(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    found = [row[name]["mean"] if isinstance(row.get(name), dict) else row.get(name) for row in rows]
    values = [float(value) for value in found if value is not None]
    return f"{sum(values) / len(values):.3f}" if values else "-"


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
