"""Tickets in, episodes out, in one process: groups of slots that take turns, and the memory they need."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from addiffusion.backbones.base import Backbone
from addiffusion.config import Config
from addiffusion.errors import RolloutError
from addiffusion.observation.builder import make_observation_builder
from addiffusion.records import Ticket
from addiffusion.rollouts import Collected
from addiffusion.sampling.engine import Engine
from addiffusion.sampling.solver_tables.build import table_for
from addiffusion.scorers.base import Scoring
from rollout_workers.async_scorer import AsyncScorer
from rollout_workers.group import Group, PolicyFunction, PolicySnapshot
from rollout_workers.metrics import Stopwatch
from rollout_workers.ticket_queue import TicketQueue

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """Tickets under way, the groups of slots that share them, and the thread on which their images are scored."""

    tickets: TicketQueue
    groups: tuple[Group, ...]
    scorer: AsyncScorer
    timed: Stopwatch


class Collector:
    """Rolls tickets out. ``collect`` leaves nothing behind that the next call could notice; ``carry`` does.

    Slots form up to two groups of equal size. Each has its own fixed network batch, so an episode is bitwise the same
    in either; while one group's images are being scored, the other one is in the network.
    """

    def __init__(self, *, backbone: Backbone, scoring: Scoring, config: Config) -> None:
        self._backbone = backbone
        self._scoring = scoring
        self._config = config
        self._slots = config.rollout.slots
        self._halved = False
        self._carried: _Batch | None = None
        self._table = table_for(backbone, config.sampler, config.refine)

    @property
    def group_size(self) -> int:
        """Slots of one group: the number of rows ``act`` is called with."""
        return -(-self._slots // self._group_count)

    @property
    def _group_count(self) -> int:
        return min(self._config.rollout.groups, self._slots)

    def collect(self, tickets: Sequence[Ticket], act: PolicyFunction, *, weight_version: int) -> Collected:
        """Roll out ``tickets``; each ends up as an episode or as a failed episode.

        When the device runs out of memory, the slots are halved, once, and the tickets are rolled out again.

        Args:
            tickets: distinct by ticket id; worked off in this order.
            act: phi (S, p) to logits (S, 3) of one group. Always called with all of its S slots; rows of slots that
                decide nothing are 0.
            weight_version: version of the weights behind ``act``.

        Raises:
            ContractError: two tickets share an id, or ``act`` returns another shape.
            ScorerError: the scorers gave no answer at all (a single image without a score only fails its ticket).
            RolloutError: not even half the slots fit into memory.
        """
        policy = PolicySnapshot(act=act, weight_version=weight_version)
        try:
            return self._roll_out(tickets, policy)
        except torch.OutOfMemoryError as error:
            self._halve(error)
        try:
            return self._roll_out(tickets, policy)
        except torch.OutOfMemoryError as error:
            raise self._too_small(error) from error

    def carry(
        self, tickets: Sequence[Ticket], act: PolicyFunction, *, weight_version: int, ticks: int, more: bool = False
    ) -> Collected:
        """Take ``tickets`` in, work for ``ticks`` ticks, and return what has ended; the rest goes on at the next call.

        Episodes under way go on with the weights behind ``act``. When the slots are halved, unfinished episodes begin
        again.

        Args:
            tickets: new work, distinct by ticket id from all that is under way.
            act: as of ``collect``.
            weight_version: version of the weights behind ``act``.
            ticks: ticks of each group.
            more: the next call brings tickets: this one ends early rather than have slots idle.

        Raises:
            ContractError: a ticket is open already, or ``act`` returns another shape.
            ScorerError: the scorers gave no answer at all.
            RolloutError: not even half the slots fit into memory.
        """
        policy = PolicySnapshot(act=act, weight_version=weight_version)
        try:
            return self._carry_on(tickets, policy, ticks=ticks, more=more)
        except torch.OutOfMemoryError as error:
            self._halve(error)
        begun = tickets if self._carried is None else self.abandon()
        try:
            return self._carry_on(begun, policy, ticks=ticks, more=more)
        except torch.OutOfMemoryError as error:
            raise self._too_small(error) from error

    def abandon(self) -> tuple[Ticket, ...]:
        """Tickets that ``carry`` has taken in and not returned; they are forgotten."""
        batch, self._carried = self._carried, None
        if batch is None:
            return ()
        batch.scorer.close()
        return batch.tickets.open_tickets

    def _roll_out(self, tickets: Sequence[Ticket], policy: PolicySnapshot) -> Collected:
        batch = self._open()
        try:
            return _work(batch, tickets, policy)
        finally:
            batch.scorer.close()

    def _carry_on(self, tickets: Sequence[Ticket], policy: PolicySnapshot, *, ticks: int, more: bool) -> Collected:
        if self._carried is None:
            if not tickets:
                return Collected(episodes=())
            self._carried = self._open()
        collected = _work(self._carried, tickets, policy, ticks=ticks, more=more)
        if not self._carried.tickets.open_tickets:
            self.abandon()  # gives the memory of its slots back
        return collected

    def _open(self) -> _Batch:
        """Groups of empty slots with a queue and a scorer of their own."""
        timed = Stopwatch()
        scorer = AsyncScorer(self._scoring, timed)
        tickets = TicketQueue(backbone=self._backbone, scoring=self._scoring, config=self._config)
        groups = (self._group(tickets, scorer, timed) for _ in range(self._group_count))
        return _Batch(tickets=tickets, groups=tuple(groups), scorer=scorer, timed=timed)

    def _group(self, tickets: TicketQueue, scorer: AsyncScorer, timed: Stopwatch) -> Group:
        config = self._config
        engine = Engine(
            self._backbone,
            config.sampler,
            config.refine,
            slots=self.group_size,
            guidance_scale=config.backbone.guidance_scale,
            table=self._table,
        )
        observations = make_observation_builder(config, backbone=self._backbone, scoring=self._scoring, tickets=tickets)
        return Group(
            engine, observations=observations, scorer=scorer, tickets=tickets, reward=config.reward, timed=timed
        )

    def _halve(self, error: torch.OutOfMemoryError) -> None:
        if self._halved or self._slots == 1:
            raise self._too_small(error) from error
        self._halved, before, self._slots = True, self._slots, self._slots // 2
        _log.warning(
            "out of memory with rollout.slots=%d: going on with %d; set rollout.slots=%d to start so.",
            before,
            self._slots,
            self._slots,
        )

    def _too_small(self, error: torch.OutOfMemoryError) -> RolloutError:
        reason = str(error).split("\n", maxsplit=1)[0].rstrip(".")
        fewer = "fewer slots, " if self._slots > 1 else ""
        return RolloutError(
            f"Out of memory even with rollout.slots={self._slots} ({reason}): choose {fewer}backbone.dtype=bfloat16 "
            "or a smaller backbone.image_size.",
            slots=self._slots,
        )


def _work(
    batch: _Batch, tickets: Sequence[Ticket], policy: PolicySnapshot, *, ticks: int | None = None, more: bool = False
) -> Collected:
    """Take tickets in, work, and return what has ended.

    Args:
        batch: the slots.
        tickets: new work.
        policy: decides, in episodes under way as well.
        ticks: of each group; None works to the end.
        more: other tickets are on their way: work ends after the tick that leaves a slot without one.

    Raises:
        ContractError: a ticket is open already, or the policy returns another shape.
        ScorerError: the scorers gave no answer at all.
    """
    batch.tickets.add(tickets)
    done_count = 0
    while (ticks is None or done_count < ticks) and _tick(batch.groups, policy):
        done_count += 1
        if more and not batch.tickets.waiting and any(group.has_room for group in batch.groups):
            break
    return batch.tickets.outcome(batch.timed.take())


def _tick(groups: Sequence[Group], policy: PolicySnapshot) -> bool:
    """Two half ticks of each group after the other; False when no work is left."""
    for group in groups:
        group.settle(policy)
        group.refill()
        if group.busy:
            group.advance()
    return any(group.busy for group in groups)
