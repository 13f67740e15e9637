"""`addiffusion bank info`: what a bank holds, and where an oracle would stop on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console

from addiffusion.bank.archive import Bank, open_bank, shards
from addiffusion.bank.oracle import oracle_end, reward_of_ends
from addiffusion.bank.trajectory import Trajectory
from addiffusion.config import Config
from evaluation.tables import Table
from launch.runtime.console import UNSEEN, Stage

_SCENE = "scene_soft"


@dataclass(frozen=True, slots=True, kw_only=True)
class TierInfo:
    """Trajectories of one tier; means over them."""

    tier: int
    count: int
    full_nfe: float
    oracle_nfe: float
    """NFE of the end with the best reward at ``c_nfe``."""
    oracle_gain: float
    """Reward of that end minus that of the full length."""
    full_scene: float | None
    """Scene score of the full-length image; None without scenes."""
    oracle_scene: float | None
    """Scene score of the image the oracle returns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BankInfo:
    """A bank in numbers."""

    bank: Bank
    size_bytes: int
    columns: tuple[str, ...]
    c_nfe: float
    """Price the oracle pays."""
    tiers: tuple[TierInfo, ...]

    @property
    def settings(self) -> dict[str, list[Any]] | None:
        """Least and greatest of each number of the images' own settings, and their solvers; None without any."""
        own = [one.setting for one in self.bank.trajectories if one.setting is not None]
        if not own:
            return None
        values = {name: {getattr(one, name) for one in own} for name in ("num_steps", "guidance_scale", "solver")}
        spans = {name: [min(found), max(found)] for name, found in values.items() if name != "solver"}
        return spans | {"solver": sorted(values["solver"])}

    def as_json(self) -> dict[str, Any]:
        """One object for programs."""
        plan = self.bank.plan
        return {
            "trajectories": len(self.bank.trajectories),
            "planned": plan.count,
            "split": plan.split,
            "every": plan.stride,
            "metrics": list(plan.metrics),
            "replays": list(plan.replays),
            "layout": str(plan.layout),
            "size_bytes": self.size_bytes,
            "columns": list(self.columns),
            "settings": self.settings,
            "c_nfe": self.c_nfe,
            "tiers": [{name: getattr(tier, name) for name in TierInfo.__dataclass_fields__} for tier in self.tiers],
        }


def read_bank(folder: Path, config: Config | None = None, *, console: Console = UNSEEN) -> Bank:
    """``open_bank``, shown shard by shard."""
    with Stage(console, "shards of the bank", len(shards(folder)), headline="") as stage:
        return open_bank(folder, config, advance=stage.advance)


def describe(folder: Path, config: Config, *, console: Console = UNSEEN) -> BankInfo:
    """Read a bank, of whatever configuration, and let an oracle stop on it by the reward of ``config``.

    Raises:
        ArchiveError: there is no bank, or it can't be read.
    """
    bank = read_bank(folder, console=console)
    files = shards(folder)
    tiers = sorted({one.prompt.tier for one in bank.trajectories})
    return BankInfo(
        bank=bank,
        size_bytes=sum(path.stat().st_size for path in files),
        columns=tuple(pq.read_schema(files[0]).names),
        c_nfe=config.reward.c_nfe,
        tiers=tuple(
            _tier(tier, [one for one in bank.trajectories if one.prompt.tier == tier], bank, config) for tier in tiers
        ),
    )


def tables(info: BankInfo) -> tuple[Table, Table]:
    """The bank as a whole, and its tiers."""
    plan, steps = info.bank.plan, np.concatenate([one.steps for one in info.bank.trajectories])
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_row("trajectories", f"{len(info.bank.trajectories)} of {plan.count}, {plan.split} prompts")
    facts.add_row("decisions", f"steps {steps.min()} to {steps.max()}; stop tried at every {_ordinal(plan.stride)}")
    if info.settings is not None:
        facts.add_row("settings", _settings(info.settings))
    facts.add_row("actions", f"{' and '.join(plan.replays)} can be played from it")
    facts.add_row("observation", str(plan.layout))
    facts.add_row("columns", ", ".join(info.columns))
    facts.add_row("size", f"{info.size_bytes / 1e6:.1f} MB in {info.bank.path}")
    table = Table(title=f"oracle stopping by the reward, at {info.c_nfe:g} per NFE")
    for name in ("tier", "prompts", "full NFE", "oracle NFE", "gain", "full scene", "oracle scene"):
        table.add_column(name, justify="right")
    for tier in info.tiers:
        scenes = ["-" if value is None else f"{value:.3f}" for value in (tier.full_scene, tier.oracle_scene)]
        numbers = (f"{tier.full_nfe:.1f}", f"{tier.oracle_nfe:.1f}", f"{tier.oracle_gain:+.3f}")
        table.add_row(str(tier.tier or "-"), str(tier.count), *numbers, *scenes)
    return facts, table


def _tier(tier: int, members: Sequence[Trajectory], bank: Bank, config: Config) -> TierInfo:
    utilities = [reward_of_ends(one, config.reward, c_nfe=config.reward.c_nfe) for one in members]
    best = [oracle_end(utility) for utility in utilities]
    scenes = [one.ends(_SCENE) for one in members] if _SCENE in bank.plan.metrics else None
    return TierInfo(
        tier=tier,
        count=len(members),
        full_nfe=float(np.mean([one.end_nfe[-1] for one in members])),
        oracle_nfe=float(np.mean([one.end_nfe[end] for one, end in zip(members, best, strict=True)])),
        oracle_gain=float(np.mean([utility[end] - utility[-1] for utility, end in zip(utilities, best, strict=True)])),
        full_scene=None if scenes is None else float(np.mean([scene[-1] for scene in scenes])),
        oracle_scene=None
        if scenes is None
        else float(np.mean([scene[end] for scene, end in zip(scenes, best, strict=True)])),
    )


def _settings(found: Mapping[str, list[Any]]) -> str:
    (few, many), (weak, strong) = found["num_steps"], found["guidance_scale"]
    solvers = " or ".join(found["solver"])
    return f"of each image its own: {few} to {many} steps of {solvers}, guidance {weak:g} to {strong:g}"


def _ordinal(stride: int) -> str:
    return "one" if stride == 1 else f"{stride}th" if stride > 3 else {2: "2nd", 3: "3rd"}[stride]
