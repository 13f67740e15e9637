"""The episodes an iteration trains on, whichever way they were collected."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from addiffusion.errors import StaleWeightsError
from addiffusion.records import Episode
from addiffusion.rollouts import Collected, Rollouts
from learner.tickets import TicketLedger


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Exactly the episodes of one iteration's tickets."""

    episodes: tuple[Episode, ...]
    """In the order of their ticket ids."""
    stage_s: Mapping[str, float]
    """Seconds per rollout stage, summed over workers."""
    reissued_count: int
    """Tickets that had to be handed out again."""
    facts: Mapping[str, float]
    """How the batch came about: ``lag_mean`` and ``lag_max`` (updates between a decision and this iteration's weights),
    ``carried_frac`` (of the episodes: acted by more than one version) and ``ahead_count`` (finished episodes that wait
    for their iteration)."""


class BatchBuilder:
    """The batch of one iteration while it is collected."""

    def __init__(self, iteration: int, ledger: TicketLedger, *, oldest: int) -> None:
        """An empty batch of ``iteration``; decisions by weights from version ``oldest`` on are allowed."""
        self._iteration, self._ledger, self._oldest = iteration, ledger, oldest
        self._stage_s: defaultdict[str, float] = defaultdict(float)
        self._reissued_before = ledger.state.reissued_count

    def note(self, collected: Collected) -> None:
        """Add the workers' seconds per stage."""
        for stage, seconds in collected.stage_s.items():
            self._stage_s[stage] += seconds

    def build(self, episodes: Iterable[Episode], *, ahead: Sequence[Episode] = ()) -> Batch:
        """The batch of ``episodes``; ``ahead`` wait for later iterations.

        Raises:
            StaleWeightsError: a decision was taken by weights that are too old, or not yet there.
        """
        ordered = sorted(episodes, key=lambda episode: episode.ticket.ticket_id)
        versions = np.concatenate([episode.weight_versions for episode in ordered])
        self._check(versions)
        lag = self._iteration - versions
        return Batch(
            episodes=tuple(ordered),
            stage_s=dict(self._stage_s),
            reissued_count=self._ledger.state.reissued_count - self._reissued_before,
            facts={
                "lag_mean": float(lag.mean()),
                "lag_max": float(lag.max()),
                "carried_frac": float(np.mean([episode.carried_versions is not None for episode in ordered])),
                "ahead_count": float(len(ahead)),
            },
        )

    def _check(self, versions: Int[np.ndarray, " d"]) -> None:
        if (versions < self._oldest).any() or (versions > self._iteration).any():
            raise StaleWeightsError(
                f"Iteration {self._iteration} got decisions of weight versions {sorted(set(versions.tolist()))}, but "
                f"only {self._oldest} to {self._iteration} are allowed.",
                expected=self._iteration,
                oldest=self._oldest,
            )


def collect_batch(iteration: int, *, ledger: TicketLedger, rollouts: Rollouts) -> Batch:
    """Roll the tickets of ``iteration`` out, handing failed ones out again until every one has its episode.

    Nothing is filtered and nothing is topped up with other tickets: short and failing episodes weigh as much as any.
    """
    builder = BatchBuilder(iteration, ledger, oldest=iteration)
    episodes: list[Episode] = []
    tickets = ledger.issue(iteration)
    while tickets:
        collected = rollouts.collect(tickets)
        ledger.check_in(collected.episodes)
        episodes += collected.episodes
        builder.note(collected)
        tickets = ledger.reissue(collected.failed)
    return builder.build(episodes)
