"""`addiffusion bank play`: a trained policy's whole front, replayed on a bank at several prices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from addiffusion.actions import Action
from addiffusion.bank.archive import Bank
from addiffusion.bank.oracle import gain_share, oracle_end, reward_of_ends
from addiffusion.bank.replay import BankRollouts
from addiffusion.config import Config
from addiffusion.policy import PolicyNetwork
from addiffusion.policy_files import TrainedPolicy, read_policy
from addiffusion.records import Episode
from evaluation.comparison.bank_stops import against_stops
from evaluation.comparison.contestants import Contestant, agent, cases_of
from evaluation.comparison.draw import draw_cases
from evaluation.comparison.metric_table import MetricTable, metric_table, tier_correlation
from evaluation.comparison.results import ImageResult
from evaluation.comparison.scores import bank_scores
from evaluation.significance.paired import Comparison
from evaluation.tables import Table
from launch.banks.info import read_bank
from launch.runtime.console import UNSEEN, Stage

_QUALITY = ("scene_soft", "clip")


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
    fixed_reward: float
    """Of the one NFE that is best for all images."""
    fixed_nfe: float
    differences: dict[str, dict[str, Comparison | None]]
    """By score, then by opponent (``full``, ``random_stop``, ``fixed_stop``); None with too few images."""
    other_action_count: int
    """Decisions at which a live policy would neither continue nor stop. A bank can do nothing else, and the better of
    these is taken."""
    decision_count: int

    @property
    def oracle_share(self) -> float | None:
        """Share of the oracle's gain over never stopping; None where an oracle gains nothing."""
        return self._share(self.reward)

    @property
    def fixed_share(self) -> float | None:
        """That of the best fixed stop."""
        return self._share(self.fixed_reward)

    def as_json(self) -> dict[str, Any]:
        """One object for programs."""
        found = {
            score: {opponent: None if one is None else one.as_json() for opponent, one in against.items()}
            for score, against in self.differences.items()
        }
        shares = {"oracle_share": self.oracle_share, "fixed_share": self.fixed_share}
        return asdict(self) | {"differences": found} | shares

    def _share(self, reward: float) -> float | None:
        return gain_share(reward, self.full_reward, self.oracle_reward)


def play(folder: Path, policy: str, prices: Sequence[float], *, console: Console = UNSEEN) -> list[Played]:
    """Replay a policy at each price, by its likeliest actions.

    Args:
        folder: of the bank.
        policy: ``shipped``, or a run, a checkpoint or an exported folder.
        prices: per NFE, a replay for each; without one the configuration's.
        console: where it is shown how many episodes are replayed.

    Raises:
        ArchiveError: the bank is not of the policy's configuration.
        RunFolderError: there is no such policy.
        CheckpointError: its files are missing or damaged.
    """
    trained = read_policy(policy)
    bank = read_bank(folder, trained.config([]), console=console)
    config = trained.config(["policy.actions=[continue,stop]"])
    rollouts = BankRollouts(bank, config)
    rollouts.set_weights(trained.weights_of_first_actions(), 0)
    asked = prices or (config.reward.c_nfe,)
    with Stage(console, "episodes", len(asked) * len(bank.trajectories), headline="") as stage:
        policies = [agent(config.sampler, policy=0, name="policy", title="policy", c_nfe=price) for price in asked]
        return [_played(bank, config, trained, *_replayed(bank, rollouts, one, stage.advance)) for one in policies]


def table(played: Sequence[Played]) -> Table:
    """What was spent and earned: one row per price."""
    tiers = sorted({tier for one in played for tier in one.nfe_by_tier})
    shown = Table(title="one policy, asked at several prices")
    names = ("price", "NFE", *(f"tier {tier}" for tier in tiers), "Spearman", "share of oracle's gain")
    for name in (*names, "oracle NFE", "best fixed NFE", "its share"):
        shown.add_column(name, justify="right")
    for one in played:
        by_tier = [f"{one.nfe_by_tier[tier]:.1f}" for tier in tiers]
        spearman = "-" if one.tier_spearman is None else f"{one.tier_spearman:+.2f}"
        shares = ["-" if share is None else f"{share:.0%}" for share in (one.oracle_share, one.fixed_share)]
        rewards = (shares[0], f"{one.oracle_nfe:.1f}", f"{one.fixed_nfe:.0f}", shares[1])
        shown.add_row(f"{one.c_nfe:g}", f"{one.nfe:.1f}", *by_tier, spearman, *rewards)
    if any(one.other_action_count for one in played):
        others = ", ".join(f"{one.other_action_count} of {one.decision_count}" for one in played)
        shown.caption = f"decisions at which a live policy would neither continue nor stop, as a bank must: {others}"
    return shown


def quality_table(played: Sequence[Played]) -> Table:
    """Paired differences: one row per price and score."""
    shown = Table(title="policy minus ..., 95 % intervals")
    shown.add_column("price", justify="right")
    shown.add_column("score")
    for name in ("full length", "random stop, same NFE", "fixed stop, mean NFE"):
        shown.add_column(name, justify="right")
    for one in played:
        for score, found in one.differences.items():
            shown.add_row(f"{one.c_nfe:g}", score, *("-" if one is None else one.brief(4) for one in found.values()))
    return shown


def _replayed(
    bank: Bank, rollouts: BankRollouts, policy: Contestant, advance: Callable[[], None]
) -> tuple[MetricTable, list[Episode]]:
    """Scores and episode of each trajectory."""
    cases, judge = cases_of((one.prompt, one.seed) for one in bank.trajectories), bank_scores(bank)
    cases = [replace(case, setting=one.setting) for case, one in zip(cases, bank.trajectories, strict=True)]
    results: list[ImageResult] = []
    episodes: list[Episode] = []
    for case, one in zip(cases, bank.trajectories, strict=True):
        drawn = draw_cases(rollouts, policy, [case], judge=judge, references={case.index: one.reference})
        results += drawn.results
        episodes += drawn.episodes.values()
        advance()
    return metric_table(policy, results, cases, None), episodes


def _played(
    bank: Bank, config: Config, trained: TrainedPolicy, policy: MetricTable, episodes: Sequence[Episode]
) -> Played:
    price = policy.contestant.c_nfe
    worth = [reward_of_ends(one, config.reward, c_nfe=price) for one in bank.trajectories]
    best = [oracle_end(values) for values in worth]
    correlation = tier_correlation(policy)
    fixed_nfe, fixed_reward = _best_fixed(bank, worth)
    stops = np.array([len(episode.actions) - 1 for episode in episodes])
    found = against_stops(bank, policy, stops)
    quality = [name for name in _QUALITY if name in (*bank.plan.metrics, "clip")]
    phi = np.concatenate([episode.phi for episode in episodes])
    return Played(
        c_nfe=price,
        nfe=policy.mean("nfe"),
        nfe_by_tier=policy.mean_by_tier("nfe"),
        tier_spearman=None if math.isnan(correlation) else correlation,
        reward=policy.mean("reward"),
        full_reward=float(np.mean([values[-1] for values in worth])),
        oracle_reward=float(np.mean([values.max() for values in worth])),
        oracle_nfe=float(np.mean([one.end_nfe[end] for one, end in zip(bank.trajectories, best, strict=True)])),
        fixed_reward=fixed_reward,
        fixed_nfe=fixed_nfe,
        differences={name: {other: found.against(other, name) for other in found.others} for name in quality},
        other_action_count=_others(trained, phi),
        decision_count=len(phi),
    )


def _best_fixed(bank: Bank, worth: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """NFE and mean reward of the one NFE that is best for all."""
    candidates = np.unique(np.concatenate([one.end_nfe for one in bank.trajectories])).astype(np.float64)
    pairs = zip(bank.trajectories, worth, strict=True)
    means = np.mean([np.interp(candidates, one.end_nfe, values) for one, values in pairs], axis=0)
    best = int(means.argmax())
    return float(candidates[best]), float(means[best])


def _others(trained: TrainedPolicy, phi: NDArray[np.float32]) -> int:
    """Decisions whose likeliest action is neither continue nor stop, where the policy was trained to have another."""
    config = trained.config([])
    network = PolicyNetwork(phi.shape[1], config.policy.hidden, actions=config.policy.actions).eval()
    network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in trained.weights.items()})
    with torch.inference_mode():
        return int((network(torch.from_numpy(phi)).argmax(1) > Action.STOP).sum())
