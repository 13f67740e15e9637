"""Whether the policy earns on prompts it has never seen what it earns on the pairs it was trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from addiffusion.config import Config
from addiffusion.records import Episode, Ticket, TicketId
from addiffusion.rollouts import Rollouts
from evaluation.numbers import json_number, mean_of_numbers
from evaluation.significance.intervals import MINIMUM_COUNT, Interval, gap_interval
from learner.tickets import PoolEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneralizationGap:
    """Mean return of the likeliest actions, on training pairs and on held-out prompts, at the same price."""

    c_nfe: float
    trained: float
    """NaN where no image of a training pair was finished, as below."""
    held_out: float
    dropped_count: int
    """Training pairs whose image could not be finished; they are in none of the numbers."""
    interval: Interval | None
    """95 % interval of ``trained - held_out``; None with fewer than MINIMUM_COUNT images on either side."""

    @property
    def memorised(self) -> bool:
        """Whether the policy surely earns more on what it was trained on."""
        return self.interval is not None and self.interval.low > 0

    def line(self) -> str:
        """One line for under the held-out table."""
        between = "" if self.interval is None else f" [{self.interval.low:+.2f}, {self.interval.high:+.2f}]"
        return (
            f"return at c_nfe {self.c_nfe:g}: {_signed(self.trained)} on training pairs, {_signed(self.held_out)} on "
            f"held-out prompts; gap {_signed(self.trained - self.held_out)}{between}"
        )

    def advice(self) -> str | None:
        """What to do about a gap; None where none is proved."""
        if not self.memorised:
            return None
        return (
            "the policy earns more on the pairs it was trained on than on new prompts: more of them "
            "(prompts.train_count) or fewer episodes may serve new prompts better"
        )

    def as_json(self) -> dict[str, Any]:
        """Keys of `result.json`; null where there is no number."""
        return {
            "return_training": json_number(self.trained),
            "return_held_out": json_number(self.held_out),
            "generalization_gap_ci": None if self.interval is None else self.interval.as_json(),
        }


def generalization_gap(
    rollouts: Rollouts, pool: Sequence[PoolEntry], held_out: Sequence[Episode], config: Config
) -> GeneralizationGap:
    """Draw as many training pairs as there are held-out images, with the likeliest actions, and compare the returns.

    Args:
        rollouts: with the policy's weights.
        pool: training pairs; the first of them are drawn.
        held_out: episodes of held-out prompts.
        config: of the run, for its price.

    Raises:
        RolloutError: no worker could finish the images in time.
    """
    price = config.reward.c_nfe
    tickets = [
        Ticket.greedy(TicketId(row), one.prompt, seed=one.seed, c_nfe=price, reference=one.reference, keep_image=False)
        for row, one in enumerate(pool[: len(held_out)])
    ]
    collected = rollouts.collect(tickets)
    ours, theirs = _returns(collected.episodes), _returns(held_out)
    enough = min(len(ours), len(theirs)) >= MINIMUM_COUNT
    return GeneralizationGap(
        c_nfe=price,
        trained=mean_of_numbers(ours),
        held_out=mean_of_numbers(theirs),
        dropped_count=len(collected.failed),
        interval=gap_interval(ours, theirs) if enough else None,
    )


def _returns(episodes: Sequence[Episode]) -> NDArray[np.float64]:
    return np.array([episode.rewards.sum() for episode in episodes], np.float64)


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.2f}"
