"""The trained policy against always-continue and a static few-step sampler, on prompts it has never seen.

Every arm draws the same (prompt, seed) pairs, so rows of the table differ by the decisions alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from addiffusion.actions import ACTION_NAMES, Action
from addiffusion.config import Config, SamplerSection
from addiffusion.records import METRIC_NAMES, SCORE_NAMES, Episode, Prompt, ScoreRequest, Ticket
from addiffusion.reward import reference_of
from addiffusion.rollouts import Rollouts
from addiffusion.scorers.base import Scoring
from addiffusion.seeds import derive_seed
from evaluation.numbers import mean_of_numbers

COLLAPSE_FRAC = 0.99
"""A policy that takes one action at a larger share of its decisions has collapsed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One contestant of the table."""

    name: str
    """Key in the JSON line: `policy`, `full`, `static`."""
    title: str
    forced: Action | None = None
    sampler: SamplerSection | None = None
    """None: the run's own sampler."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmResult:
    """What one arm drew, episode by episode."""

    arm: Arm
    episodes: tuple[Episode, ...]
    scene: NDArray[np.float32]
    """(n, 2) soft and strict scene score of each returned image; NaN where the prompt is outside the grammar."""
    seconds: float
    """Wall clock per image."""
    dropped_count: int

    def mean_nfe(self) -> float:
        """Network passes per image."""
        return mean_of_numbers([episode.nfe for episode in self.episodes])

    def mean_network_evals(self) -> float:
        """Passes through the network per image; a guided pass counts twice."""
        return mean_of_numbers([episode.network_evals for episode in self.episodes])

    def mean_score(self, name: str) -> float:
        """Mean final score, by a name of SCORE_NAMES or METRIC_NAMES; NaN when no image has one."""
        if name in METRIC_NAMES:
            return mean_of_numbers(self.scene[:, METRIC_NAMES.index(name)])
        return mean_of_numbers([episode.scores[-1, SCORE_NAMES.index(name)] for episode in self.episodes])

    def of_tier(self, tier: int) -> ArmResult:
        """The same result, episodes of one tier only; the seconds stay those of the whole batch."""
        rows = [row for row, episode in enumerate(self.episodes) if episode.ticket.prompt.tier == tier]
        return replace(self, episodes=tuple(self.episodes[row] for row in rows), scene=self.scene[rows])

    def tiers(self) -> tuple[int, ...]:
        """Tiers present, in order."""
        return tuple(sorted({episode.ticket.prompt.tier for episode in self.episodes}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdout:
    """The comparison at the end of a run."""

    policy: ArmResult
    full: ArmResult
    static: ArmResult

    @property
    def arms(self) -> tuple[ArmResult, ArmResult, ArmResult]:
        """Policy first, then its opponents."""
        return self.policy, self.full, self.static


def evaluate(
    rollouts: Rollouts, scoring: Scoring, *, prompts: Sequence[Prompt], config: Config, advance: Callable[[int], None]
) -> Holdout:
    """Draw every held-out prompt with each arm and judge the images.

    The full-length images come first: the `paired` reward of the policy's episodes is relative to them. ``advance`` is
    told how many images an arm has finished.

    Raises:
        RolloutError: no worker could finish the images in time.
    """
    full_arm, policy_arm, static_arm = _arms(config)
    full = run_arm(rollouts, scoring, full_arm, arm_tickets(full_arm, prompts, config))
    advance(len(prompts))
    references = {episode.ticket.prompt: reference_of(episode) for episode in full.episodes}
    tickets = [
        replace(ticket, reference=references.get(ticket.prompt)) for ticket in arm_tickets(policy_arm, prompts, config)
    ]
    policy = run_arm(rollouts, scoring, policy_arm, tickets)
    advance(len(prompts))
    static = run_arm(rollouts, scoring, static_arm, arm_tickets(static_arm, prompts, config))
    advance(len(prompts))
    return Holdout(policy=policy, full=full, static=static)


def action_fractions(episodes: Sequence[Episode]) -> dict[str, float]:
    """Share of each action among all decisions; zeros when there are none."""
    counts = np.zeros(len(ACTION_NAMES))
    for episode in episodes:
        counts += np.bincount(episode.actions, minlength=len(ACTION_NAMES))
    return dict(zip(ACTION_NAMES, (counts / max(counts.sum(), 1)).tolist(), strict=True))


def collapse(episodes: Sequence[Episode]) -> str | None:
    """Why the policy counts as collapsed, in one sentence; None when it does not."""
    for name, fraction in action_fractions(episodes).items():
        if fraction > COLLAPSE_FRAC:
            return f"the policy has collapsed: {fraction:.1%} of its decisions are `{name}`"
    spent = {episode.nfe for episode in episodes}
    if len(episodes) > 1 and len(spent) == 1:
        return f"the policy has collapsed: every image takes {spent.pop()} NFE"
    return None


def arm_tickets(arm: Arm, prompts: Sequence[Prompt], config: Config) -> list[Ticket]:
    """One ticket per prompt. Seeds depend on the run seed and the prompt only, so arms share them."""
    make = Ticket.greedy if arm.forced is None else Ticket.full_length
    return [
        make(
            position,
            prompt,
            seed=derive_seed(config.run.seed, "holdout", prompt.prompt_id),
            c_nfe=config.reward.c_nfe,
            keep_frames=arm.forced is None and position < config.run.film_strips,
        )
        for position, prompt in enumerate(prompts)
    ]


def static_sampler(config: Config) -> SamplerSection:
    """The few-step sampler of the table: the run's own solver, and nothing to decide."""
    steps, sampler = config.evaluation.static_steps, config.sampler
    return sampler.model_copy(
        update={"num_steps": steps, "finish_steps": 0, "warmup_steps": min(sampler.warmup_steps, steps - 1)}
    )


def _arms(config: Config) -> tuple[Arm, Arm, Arm]:
    steps, sampler, static = config.evaluation.static_steps, config.sampler, static_sampler(config)
    return (
        Arm(name="full", title=f"always continue ({sampler.num_steps})", forced=Action.CONTINUE),
        Arm(name="policy", title="trained policy"),
        Arm(name="static", title=f"{sampler.solver.upper()}-{steps}", forced=Action.CONTINUE, sampler=static),
    )


def run_arm(rollouts: Rollouts, scoring: Scoring, arm: Arm, tickets: Sequence[Ticket]) -> ArmResult:
    """Draw an arm's images and judge them.

    Raises:
        RolloutError: no worker could finish the images in time.
    """
    start = time.perf_counter()
    collected = rollouts.collect(tickets, sampler=arm.sampler)
    seconds = (time.perf_counter() - start) / max(len(collected.episodes), 1)
    return ArmResult(
        arm=arm,
        episodes=collected.episodes,
        scene=judge(scoring, collected.episodes),
        seconds=seconds,
        dropped_count=len(collected.failed),
    )


def judge(scoring: Scoring, episodes: Sequence[Episode]) -> NDArray[np.float32]:
    """(n, 2) scene scores of the returned images by METRIC_NAMES; NaN where prompt or scorers know no scenes."""
    if not episodes or not set(METRIC_NAMES) <= set(scoring.names):
        return np.full((len(episodes), len(METRIC_NAMES)), np.nan, np.float32)
    request = ScoreRequest(
        images=np.stack([episode.image for episode in episodes]),
        prompts=tuple(episode.ticket.prompt.text for episode in episodes),
        names=METRIC_NAMES,
        embeddings=(),
    )
    return scoring.score(request).values
