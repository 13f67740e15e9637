"""One line of metrics.jsonl: what an iteration's episodes, its update and its pace amount to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from addiffusion.records import Episode
from learner.iteration import IterationReport

Metrics = dict[str, float]

MEANING: Mapping[str, str] = {
    "iteration": "policy updates done",
    "return": "mean undiscounted reward of an episode; `term_*` are its parts",
    "score_*": "mean scores of the returned images",
    "nfe": "mean NFE of an image; between `nfe_p10` and `nfe_p90` lie 80 % of the images",
    "nfe_tier*": "mean NFE of the prompts of a tier",
    "network_evals": "mean passes through the network of an image; a guided pass counts twice",
    "decisions": "mean decisions of an episode",
    "*_frac": "share of an action among all decisions",
    "only_continue_frac": "share of the images that only continue, to the last step",
    "stop_at_once_frac": "share of the images that stop at their first decision",
    "episodes_dropped": "tickets without an episode; reissued ones are not dropped",
    "audit_length_gap": "decisions in the learner's batch over those of the tickets issued for it, minus 1: always 0",
    "lag_mean": "mean updates between a decision and the weights of its iteration; `lag_max` the largest",
    "carried_frac": "share of the episodes that more than one version of the weights acted",
    "ahead_count": "finished episodes that wait for their iteration (carry_over)",
    "decisions_trained": "decisions in the learner's batch",
    "episodes_reissued": "tickets that were handed out again",
    "collect_s": "wall clock of the rollouts",
    "update_s": "wall clock of the update and the hand-over of the weights",
    "broadcast_s": "the part of it that is the hand-over; workers fetch the weights with their next tickets",
    "stage_*_s": "seconds of a rollout stage, summed over workers",
    "episodes_per_s": "episodes per second of the whole iteration",
    "eta_s": "estimated wall clock to the last iteration",
    "policy_loss": "PPO surrogate loss, mean over gradient steps; `vf_loss`, `total_loss` likewise",
    "explained_variance": "share of the variance of the value targets that the values explained before the update",
    "alarm_*": "1 while a sign of collapse holds, else 0 (alarms.*)",
    "entropy": "of the policy, nats per decision",
    "approx_kl": "KL divergence of the updated policy from the one that acted, nats",
}
"""What each metric means, by name or pattern."""


def iteration_row(report: IterationReport, *, earlier_s: Sequence[float], iterations_left: int) -> Metrics:
    """Flatten a report; ``earlier_s`` are the durations of the iterations before it in this process."""
    nfe = [episode.nfe for episode in report.episodes]
    seconds = report.collect_s + report.update_s
    recent = [*earlier_s, seconds][-5:]
    return {
        "iteration": report.iteration + 1,
        **report.rollout,
        "nfe_p10": float(np.percentile(nfe, 10)),
        "nfe_p90": float(np.percentile(nfe, 90)),
        **_nfe_by_tier(report.episodes),
        **report.update,
        **report.facts,
        "episodes_reissued": report.reissued_count,
        "collect_s": report.collect_s,
        "update_s": report.update_s,
        "broadcast_s": report.broadcast_s,
        **{f"stage_{name}_s": value for name, value in report.stage_s.items()},
        "episodes_per_s": len(report.episodes) / seconds,
        "eta_s": iterations_left * sum(recent) / len(recent),
    }


def _nfe_by_tier(episodes: Sequence[Episode]) -> Metrics:
    tiers = sorted({episode.ticket.prompt.tier for episode in episodes})
    nfe = {tier: [episode.nfe for episode in episodes if episode.ticket.prompt.tier == tier] for tier in tiers}
    return {f"nfe_tier{tier}": float(np.mean(values)) for tier, values in nfe.items()}
