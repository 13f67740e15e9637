"""The comparison at the end of a training, on prompts the policy has never seen: policy, whole schedule, few steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from addiffusion.actions import ACTION_NAMES, FIRST_ACTIONS
from addiffusion.config import Config, SamplerSection
from addiffusion.records import Episode, Prompt
from addiffusion.reward import reference_of
from addiffusion.rollouts import Rollouts
from addiffusion.scorers.base import Scoring
from evaluation.comparison.contestants import Contestant, agent, full_run, make_cases
from evaluation.comparison.draw import draw_cases
from evaluation.comparison.metric_table import tier_correlation
from evaluation.comparison.scores import paid_scores
from evaluation.comparison.summary import ComparisonResult
from evaluation.numbers import json_number
from evaluation.significance.intervals import MINIMUM_COUNT
from evaluation.significance.paired import Comparison

COLLAPSE_FRAC = 0.99
"""A policy that takes one action at a larger share of its decisions has collapsed."""
STATIC = "static"
_SHOWN = (("scene", "scene_soft"), ("CLIP", "clip"))
_SHOWN_OF_REAL = (("CLIP", "clip"), ("pref.", "image_reward"))
"""Of images whose scenes nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """The comparison, and what the policy did."""

    result: ComparisonResult
    """The policy is its agent; the others are ``full`` and ``static``."""
    episodes: tuple[Episode, ...]
    """Of the policy."""

    @property
    def lost(self) -> tuple[str, ...]:
        """Why images of any contestant could not be drawn; one reason for each."""
        return tuple(reason for one in self.result.all for reason in one.errors)

    def warning(self) -> str | None:
        """What is missing from the table, in one sentence; None where nothing is."""
        if not self.lost:
            return None
        return (
            f"{len(self.lost)} of the held-out images could not be drawn and are in no number above; the first one: "
            f"{self.lost[0]}"
        )


def compare_held_out(
    rollouts: Rollouts, scoring: Scoring, *, prompts: Sequence[Prompt], config: Config, advance: Callable[[int], None]
) -> HeldOut:
    """Draw every held-out prompt with policy, whole schedule and static sampler, same seeds, and judge the images.

    Args:
        rollouts: with the policy's weights.
        scoring: what judges scenes.
        prompts: each is drawn once.
        config: of the run.
        advance: told how many images a contestant has finished.

    Raises:
        RolloutError: no worker could finish the images in time.
    """
    cases, judge = make_cases(prompts, repeats=1, seed=config.run.seed), paid_scores(scoring)
    whole, policy, static = _contestants(config)
    full = draw_cases(rollouts, whole, cases, judge=judge)
    advance(len(cases))
    # The `paired` reward of the policy's episodes is relative to the full-length images.
    references = {index: reference_of(episode) for index, episode in full.episodes.items()}
    ours = draw_cases(rollouts, policy, cases, judge=judge, films=config.run.film_strips, references=references)
    advance(len(cases))
    few = draw_cases(rollouts, static, cases, judge=judge)
    advance(len(cases))
    others = {one.contestant.name: one.table(cases) for one in (full, few)}
    return HeldOut(
        result=ComparisonResult(agent=ours.table(cases), others=others), episodes=tuple(ours.episodes.values())
    )


def static_sampler(config: Config) -> SamplerSection:
    """The few-step sampler of the table: the run's own solver, and nothing to decide."""
    steps, sampler = config.evaluation.static_steps, config.sampler
    return sampler.model_copy(
        update={"num_steps": steps, "finish_steps": 0, "warmup_steps": min(sampler.warmup_steps, steps - 1)}
    )


def _contestants(config: Config) -> tuple[Contestant, Contestant, Contestant]:
    """Full run, policy, static sampler; all tickets say the run's price."""
    price, sampler, few = config.reward.c_nfe, config.sampler, static_sampler(config)
    title = f"{few.solver.upper()}-{few.num_steps}"
    return (
        replace(full_run(sampler), c_nfe=price),
        agent(sampler, policy=0, name="policy", title="trained policy", c_nfe=price),
        Contestant(name=STATIC, title=title, kind="static", sampler=few, c_nfe=price),
    )


def action_fractions(episodes: Sequence[Episode]) -> dict[str, float]:
    """Share of each action that the policy has a logit for among all decisions; zeros when there are none."""
    names = ACTION_NAMES[: max((episode.logits.shape[1] for episode in episodes), default=len(FIRST_ACTIONS))]
    counts = np.zeros(len(names))
    for episode in episodes:
        counts += np.bincount(episode.actions, minlength=len(names))
    return dict(zip(names, (counts / max(counts.sum(), 1)).tolist(), strict=True))


def collapse(episodes: Sequence[Episode]) -> str | None:
    """Why the policy counts as collapsed, in one sentence; None when it does not."""
    for name, fraction in action_fractions(episodes).items():
        if fraction > COLLAPSE_FRAC:
            return f"the policy has collapsed: {fraction:.1%} of its decisions are `{name}`"
    spent = {episode.nfe for episode in episodes}
    if len(episodes) > 1 and len(spent) == 1:
        return f"the policy has collapsed: every image takes {spent.pop()} NFE"
    return None


def evidence_line(result: ComparisonResult) -> str:
    """How sure the comparison is, and whether more is spent where more is asked: one line for under the table."""
    shown = _SHOWN if result.knows_scenes else _SHOWN_OF_REAL
    differences = [f"{title} {_difference(result.against('full', name))}" for title, name in shown]
    by_tier, rho = result.agent.mean_by_tier("nfe"), tier_correlation(result.agent)
    spent = " / ".join(f"{nfe:.1f}" for nfe in by_tier.values())
    return (
        f"policy minus {result.full.contestant.title}, 95 % intervals: {', '.join(differences)}; "
        f"NFE of tier {'/'.join(map(str, by_tier))}: {spent} (Spearman {'-' if math.isnan(rho) else f'{rho:+.2f}'})"
    )


def evidence_json(result: ComparisonResult) -> dict[str, Any]:
    """The same for `result.json`; null where there is no number."""
    found = {title: result.against("full", name) for title, name in _SHOWN}
    differences = {
        f"{title.lower()}_difference": None if one is None else one.as_json() for title, one in found.items()
    }
    return differences | {"nfe_tier_spearman": json_number(tier_correlation(result.agent))}


def _difference(comparison: Comparison | None) -> str:
    return f"- (fewer than {MINIMUM_COUNT} pairs)" if comparison is None else comparison.brief()
