"""One line of metrics.jsonl: what an iteration's episodes, its update and its pace amount to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final, Literal

import numpy as np

from addiffusion.actions import ACTION_NAMES
from addiffusion.embedded.world.scenes import TIERS
from addiffusion.metrics import Meters, Metric
from addiffusion.records import Episode
from addiffusion.rollouts import WorkerStatus
from learner.alarms import ALARM_NAMES
from learner.iteration import IterationReport

Metrics = dict[str, float]
Group = Literal["run", "agent", "learner"]
Better = Literal["more", "less"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowMetric:
    """One number of an iteration: a key of metrics.jsonl, and a series that Ray exports."""

    key: str
    metric: Metric
    better: Better | None = None
    """Whether a policy is better with more of it or with less; None where it does not tell."""

    @classmethod
    def of(
        cls, key: str, unit: str, description: str, *, group: Group = "agent", better: Better | None = None
    ) -> RowMetric:
        """A number with the series that Ray exports, ``addiffusion_<group>_<key>``.

        Args:
            key: of metrics.jsonl.
            unit: of the number, in words.
            description: a sentence for whoever reads a chart of it.
            group: part of the series' name.
            better: whether a policy is better with more of it or with less; None where it does not tell.
        """
        kind = "counter" if key in _COUNTED else "gauge"
        metric = Metric(name=f"addiffusion_{group}_{key}", kind=kind, unit=unit, description=description)
        return cls(key=key, metric=metric, better=better)


_COUNTED: Final = ("episodes_dropped", "episodes_reissued")
_of: Final = RowMetric.of
ROW: Final[Sequence[RowMetric]] = (
    _of("iteration", "updates", "Policy updates done.", group="run"),
    _of("episodes_dropped", "tickets", "Tickets without an episode; reissued ones are not dropped.", group="run"),
    _of("episodes_reissued", "tickets", "Tickets that were handed out again.", group="run"),
    _of("audit_length_gap", "fraction", "Decisions trained over those of the tickets issued, minus 1.", group="run"),
    _of("decisions_trained", "decisions", "Decisions in the learner's batch.", group="run"),
    _of("lag_mean", "updates", "Mean updates between a decision and its iteration's weights.", group="run"),
    _of("lag_max", "updates", "Most updates between a decision and its iteration's weights.", group="run"),
    _of("carried_frac", "fraction", "Share of episodes acted by more than one version of the weights.", group="run"),
    _of("ahead_count", "episodes", "Finished episodes that wait for their iteration (carry_over).", group="run"),
    _of("collect_s", "seconds", "Wall clock of the rollouts of an iteration.", group="run"),
    _of("update_s", "seconds", "Wall clock of the update and the hand-over of the weights.", group="run"),
    _of("broadcast_s", "seconds", "The part of update_s that is the hand-over of the weights.", group="run"),
    _of("episodes_per_s", "episodes per second", "Pace of the whole iteration.", group="run"),
    _of("eta_s", "seconds", "Estimated wall clock to the last iteration.", group="run"),
    _of("workers_up", "workers", "Rollout workers that can be given tickets.", group="run"),
    _of("workers_absent", "workers", "Rollout workers that start, restart or wait for a node.", group="run"),
    _of("workers_lost", "losses", "Times a rollout worker was lost since the run started.", group="run"),
    _of("tickets_moved", "tickets", "Tickets that went to another worker since the run started.", group="run"),
    _of("return", "reward", "Mean undiscounted reward of an episode; its parts are the terms.", better="more"),
    _of("term_quality", "reward", "Mean reward for the quality of the image.", better="more"),
    _of("term_efficiency", "reward", "Mean price paid for NFE, negative.", better="more"),
    _of("term_terminal", "reward", "Mean reward for the scores of the returned image.", better="more"),
    _of("term_refine", "reward", "Mean bonus for refine decisions."),
    _of("score_clip", "cosine", "Mean CLIP score of the returned images.", better="more"),
    _of("score_aesthetic", "score", "Mean aesthetic score of the returned images.", better="more"),
    _of("score_image_reward", "score", "Mean preference score of the returned images.", better="more"),
    _of("nfe", "steps", "Mean NFE of an image.", better="less"),
    _of("cost", "passes", "Mean cost of an image: guided passes; one without guidance is half of one.", better="less"),
    _of("nfe_p10", "steps", "NFE that 10 % of the images stay below.", better="less"),
    _of("nfe_p90", "steps", "NFE that 90 % of the images stay below.", better="less"),
    *(_of(f"nfe_tier{tier}", "steps", f"Mean NFE of the images of tier {tier}.", better="less") for tier in TIERS),
    _of(
        "network_evals",
        "passes",
        "Mean passes through the network of an image; a guided pass counts twice.",
        better="less",
    ),
    _of("decisions", "decisions", "Mean decisions of an episode.", better="less"),
    _of("continue_frac", "fraction", "Share of continue among all decisions."),
    _of("stop_frac", "fraction", "Share of stop among all decisions."),
    _of("refine_frac", "fraction", "Share of refine among all decisions."),
    *(_of(f"{name}_frac", "fraction", f"Share of {name} among all decisions.") for name in ACTION_NAMES[3:]),
    _of("only_continue_frac", "fraction", "Share of the images that only continue, to the last step."),
    _of("stop_at_once_frac", "fraction", "Share of the images that stop at their first decision."),
    *(_of(f"alarm_{name}", "alarms", f"1 while the sign of collapse {name} holds, else 0.") for name in ALARM_NAMES),
    _of("policy_loss", "loss", "PPO surrogate loss, mean over gradient steps.", group="learner", better="less"),
    _of("vf_loss", "loss", "Loss of the value network, mean over gradient steps.", group="learner", better="less"),
    _of("total_loss", "loss", "Sum of all losses, mean over gradient steps.", group="learner", better="less"),
    _of("entropy", "nats", "Entropy of the policy per decision.", group="learner"),
    _of("entropy_coeff", "coefficient", "Weight of the entropy in the loss.", group="learner"),
    _of("approx_kl", "nats", "KL divergence of the updated policy from the one that acted.", group="learner"),
    _of("clip_frac", "fraction", "Share of probability ratios outside the PPO clip range.", group="learner"),
    _of("grad_norm", "norm", "Global norm of the gradient before clipping.", group="learner"),
    _of(
        "explained_variance",
        "fraction",
        "Variance of the returns that the value network explains.",
        group="learner",
        better="more",
    ),
)
"""Every number of an iteration but `stage_*_s`: seconds of a rollout stage, summed over workers, which the workers
themselves export."""
ALL: Final = tuple(entry.metric for entry in ROW)
BETTER: Final[Mapping[str, Better]] = {entry.key: entry.better for entry in ROW if entry.better is not None}
"""Metrics by which a checkpoint can be the best, and when it is."""


def iteration_row(
    report: IterationReport,
    *,
    earlier_s: Sequence[float],
    iterations_left: int,
    workers: WorkerStatus | None = None,
) -> Metrics:
    """One report as numbers by key.

    Args:
        report: of the iteration.
        earlier_s: durations of the iterations before it in this process.
        iterations_left: until the run is finished.
        workers: state of workers in processes of their own; None without such.
    """
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
        **_worker_metrics(workers),
        **{f"stage_{name}_s": value for name, value in report.stage_s.items()},
        "episodes_per_s": len(report.episodes) / seconds,
        "eta_s": iterations_left * sum(recent) / len(recent),
    }


def checkpoint_score(rows: Sequence[Mapping[str, float | None]], name: str) -> float | None:
    """How good the policy was in these iterations by one metric, more is better; None where no row has it.

    A metric of which less is better counts with the opposite sign.
    """
    numbers = [value for row in rows if (value := row.get(name)) is not None]
    sign = -1.0 if BETTER.get(name) == "less" else 1.0
    return sign * fmean(numbers) if numbers else None


def _nfe_by_tier(episodes: Sequence[Episode]) -> Metrics:
    tiers = sorted({episode.ticket.prompt.tier for episode in episodes})
    nfe = {tier: [episode.nfe for episode in episodes if episode.ticket.prompt.tier == tier] for tier in tiers}
    return {f"nfe_tier{tier}": float(np.mean(values)) for tier, values in nfe.items()}


def _worker_metrics(workers: WorkerStatus | None) -> Metrics:
    if workers is None:
        return {}
    return {
        "workers_up": workers.up_count,
        "workers_absent": workers.absent_count,
        "workers_lost": workers.lost_count,
        "tickets_moved": workers.moved_count,
    }


def export(row: Mapping[str, float | int | None], meters: Meters) -> None:
    """Hand the numbers of a finished iteration to ``meters``."""
    for entry in ROW:
        value = row.get(entry.key)
        if value is not None:
            meters.record(entry.metric, value)
