"""Tickets in, episodes out, in one process, with as many slots as there is memory for."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from addiffusion.backbones.base import Backbone
from addiffusion.config import Config
from addiffusion.errors import RolloutError
from addiffusion.observation.builder import make_observation_builder
from addiffusion.records import Ticket
from addiffusion.rollouts import Collected
from addiffusion.sampling.engine import Engine
from addiffusion.sampling.solver_tables.schedules import Schedules
from addiffusion.scorers.base import Scoring
from rollout_workers.async_scorer import AsyncScorer
from rollout_workers.batch import Batch, PolicyFunction, PolicySnapshot
from rollout_workers.metrics import Stopwatch
from rollout_workers.ticket_queue import TicketQueue

_log = logging.getLogger(__name__)


class Collector:
    """Rolls tickets out. ``collect`` leaves nothing behind that the next call could notice; ``carry`` does."""

    def __init__(self, *, backbone: Backbone, scoring: Scoring, config: Config) -> None:
        self._backbone = backbone
        self._scoring = scoring
        self._config = config
        self._halved = False
        self._carried: Batch | None = None
        self._schedules = Schedules(backbone, config.sampler, config.refine)

    def collect(self, tickets: Sequence[Ticket], act: PolicyFunction, *, weight_version: int) -> Collected:
        """Roll out ``tickets``; each ends up as an episode or as a failed episode.

        When the device runs out of memory, the slots are halved, once, and the tickets are rolled out again.

        Args:
            tickets: distinct by ticket id; worked off in this order.
            act: phi (n, p) to logits (n, a). Always called with as many rows as a network pass has images
                (``Config.images_per_pass``); those that nobody decides with are 0.
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
            ticks: network passes.
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
        return batch.open_tickets

    def _roll_out(self, tickets: Sequence[Ticket], policy: PolicySnapshot) -> Collected:
        batch = self._open()
        try:
            return batch.work(tickets, policy)
        finally:
            batch.scorer.close()

    def _carry_on(self, tickets: Sequence[Ticket], policy: PolicySnapshot, *, ticks: int, more: bool) -> Collected:
        if self._carried is None:
            if not tickets:
                return Collected(episodes=())
            self._carried = self._open()
        collected = self._carried.work(tickets, policy, ticks=ticks, more=more)
        if not self._carried.open_tickets:
            self.abandon()  # gives the memory of its slots back
        return collected

    def _open(self) -> Batch:
        """Empty slots with a queue and a scorer of their own."""
        config, timed = self._config, Stopwatch()
        engine = Engine(
            self._backbone,
            config.sampler,
            config.refine,
            slots=config.rollout.slots,
            rows=config.network_rows,
            row_buckets=config.rollout.row_buckets,
            guidance_scale=config.backbone.guidance_scale,
            schedules=self._schedules,
        )
        tickets = TicketQueue(backbone=self._backbone, scoring=self._scoring, config=config)
        return Batch(
            engine,
            observations=make_observation_builder(
                config, backbone=self._backbone, scoring=self._scoring, tickets=tickets
            ),
            scorer=AsyncScorer(self._scoring, timed),
            tickets=tickets,
            config=config,
            timed=timed,
        )

    def _halve(self, error: torch.OutOfMemoryError) -> None:
        before = self._config.rollout.slots
        if self._halved or before == 1:
            raise self._too_small(error) from error
        self._halved, self._config = True, self._config.with_half_the_slots()
        after = self._config.rollout.slots
        _log.warning(
            "out of memory with rollout.slots=%d: going on with %d; set rollout.slots=%d to start so.",
            before,
            after,
            after,
        )

    def _too_small(self, error: torch.OutOfMemoryError) -> RolloutError:
        reason, slots = str(error).split("\n", maxsplit=1)[0].rstrip("."), self._config.rollout.slots
        fewer = "fewer slots, " if slots > 1 else ""
        return RolloutError(
            f"Out of memory even with rollout.slots={slots} ({reason}): choose {fewer}backbone.dtype=bfloat16 "
            "or a smaller backbone.image_size.",
            slots=slots,
        )
