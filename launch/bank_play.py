"""`addiffusion bank play`: a trained policy's whole front, replayed on a bank at several prices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from addiffusion.bank.archive import Bank, open_bank
from addiffusion.bank.oracle import oracle_end, reward_of_ends
from addiffusion.bank.replay import BankRollouts
from addiffusion.config import Config
from addiffusion.ranks import rank_correlation
from addiffusion.records import Episode, Ticket
from launch.run_folder import RunFolder
from learner.checkpoint import latest_checkpoint, load_checkpoint

_SCENE = "scene_soft"


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """One policy at one price, over all trajectories of a bank."""

    c_nfe: float
    nfe: float
    nfe_by_tier: dict[int, float]
    tier_spearman: float | None
    """Rank correlation of NFE and tier; None where either does not vary."""
    reward: float
    """Mean reward, price included, as `train` counts it."""
    full_reward: float
    """Of never stopping."""
    oracle_reward: float
    """Of stopping with hindsight."""
    oracle_nfe: float
    scene_diff: float | None
    """Scene score minus that of the full-length image; None without scenes."""

    @property
    def oracle_share(self) -> float:
        """Share of the oracle's gain over never stopping."""
        return (self.reward - self.full_reward) / (self.oracle_reward - self.full_reward)

    def as_json(self) -> dict[str, Any]:
        """One object for programs."""
        return asdict(self) | {"oracle_share": self.oracle_share}


def play(folder: Path, run: Path, prices: Sequence[float]) -> list[Played]:
    """Replay the policy of a run at each price, greedily.

    Raises:
        ArchiveError: the bank is not of the run's configuration.
        ConfigError: the policy may refine.
        CheckpointError: the run has no checkpoint.
    """
    _, config = RunFolder.open(run)
    bank = open_bank(folder, config)
    rollouts = BankRollouts(bank, config)
    checkpoint = load_checkpoint(latest_checkpoint(run))
    rollouts.set_weights({name: value.numpy() for name, value in checkpoint.learner.policy.items()}, 0)
    return [_played(bank, config, rollouts, price) for price in prices or (config.reward.c_nfe,)]


def table(played: Sequence[Played]) -> Table:
    """One row per price."""
    tiers = sorted({tier for one in played for tier in one.nfe_by_tier})
    shown = Table(title="one policy, asked at several prices")
    names = ("price", "NFE", *(f"tier {tier}" for tier in tiers), "Spearman", "scene diff", "oracle NFE", "share")
    for name in names:
        shown.add_column(name, justify="right")
    for one in played:
        by_tier = [f"{one.nfe_by_tier[tier]:.1f}" for tier in tiers]
        spearman = "-" if one.tier_spearman is None else f"{one.tier_spearman:+.2f}"
        scene = "-" if one.scene_diff is None else f"{one.scene_diff:+.4f}"
        share = f"{one.oracle_share:.0%}"
        shown.add_row(f"{one.c_nfe:g}", f"{one.nfe:.1f}", *by_tier, spearman, scene, f"{one.oracle_nfe:.1f}", share)
    return shown


def _played(bank: Bank, config: Config, rollouts: BankRollouts, price: float) -> Played:
    episodes = rollouts.collect([_ticket(row, bank, price) for row in range(len(bank.trajectories))]).episodes
    worth = [reward_of_ends(one, config.reward, c_nfe=price) for one in bank.trajectories]
    best = [oracle_end(values) for values in worth]
    nfe = np.array([episode.nfe for episode in episodes])
    tiers = np.array([one.prompt.tier for one in bank.trajectories])
    correlation = rank_correlation(nfe, tiers)
    return Played(
        c_nfe=price,
        nfe=float(nfe.mean()),
        nfe_by_tier={int(tier): float(nfe[tiers == tier].mean()) for tier in np.unique(tiers)},
        tier_spearman=None if math.isnan(correlation) else correlation,
        reward=float(np.mean([episode.rewards.sum() for episode in episodes])),
        full_reward=float(np.mean([values[-1] for values in worth])),
        oracle_reward=float(np.mean([values.max() for values in worth])),
        oracle_nfe=float(np.mean([one.end_nfe[end] for one, end in zip(bank.trajectories, best, strict=True)])),
        scene_diff=_scene_diff(bank, episodes) if _SCENE in bank.plan.metrics else None,
    )


def _scene_diff(bank: Bank, episodes: Sequence[Episode]) -> float:
    ends = [
        one.ends(_SCENE)[[one.end_at(len(episode.actions) - 1), -1]]
        for one, episode in zip(bank.trajectories, episodes, strict=True)
    ]
    return float(np.mean([ours - full for ours, full in ends]))


def _ticket(row: int, bank: Bank, price: float) -> Ticket:
    one = bank.trajectories[row]
    return Ticket(
        ticket_id=row,
        prompt=one.prompt,
        seed=one.seed,
        action_seed=0,
        c_nfe=price,
        explore=False,
        reference=one.reference,
    )
