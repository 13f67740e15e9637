"""Tickets in, episodes out, in one process: what every rollout worker does."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from addiffusion.backbones.base import Backbone
from addiffusion.config import Config
from addiffusion.errors import RolloutError
from addiffusion.records import Ticket
from addiffusion.rollouts import Collected
from addiffusion.sampling.solver_tables.build import table_for
from addiffusion.scorers.base import Scoring
from rollout_workers.group import Pay, PolicyFunction
from rollout_workers.shift import Shift

_log = logging.getLogger(__name__)


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
        self._carried: Shift | None = None
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
        pay = self._pay(act, weight_version)
        try:
            return self._roll_out(tickets, pay)
        except torch.OutOfMemoryError as error:
            self._halve(error)
        try:
            return self._roll_out(tickets, pay)
        except torch.OutOfMemoryError as error:
            raise self._too_small(error) from error

    def carry(
        self, tickets: Sequence[Ticket], act: PolicyFunction, *, weight_version: int, ticks: int, more: bool = False
    ) -> Collected:
        """Take ``tickets`` in, work for ``ticks`` ticks, and return what has ended; the rest goes on at the next call.

        Episodes under way go on with the weights behind ``act``. With ``more``, the next call brings tickets: this one
        ends early rather than have slots idle. Otherwise as ``collect``; when the slots are halved, unfinished episodes
        begin again.
        """
        pay = self._pay(act, weight_version)
        try:
            return self._carry_on(tickets, pay, ticks=ticks, more=more)
        except torch.OutOfMemoryError as error:
            self._halve(error)
        begun = tickets if self._carried is None else self.abandon()
        try:
            return self._carry_on(begun, pay, ticks=ticks, more=more)
        except torch.OutOfMemoryError as error:
            raise self._too_small(error) from error

    def _carry_on(self, tickets: Sequence[Ticket], pay: Pay, *, ticks: int, more: bool) -> Collected:
        if self._carried is None:
            if not tickets:
                return Collected(episodes=())
            self._carried = self._shift(pay)
        collected = self._carried.work(tickets, pay, ticks=ticks, more=more)
        if not self._carried.open_tickets:
            self.abandon()  # gives the memory of its slots back
        return collected

    def abandon(self) -> tuple[Ticket, ...]:
        """Forget the tickets that ``carry`` has taken in and not returned, and say which."""
        if self._carried is None:
            return ()
        with self._carried as shift:
            self._carried = None
            return shift.open_tickets

    def _roll_out(self, tickets: Sequence[Ticket], pay: Pay) -> Collected:
        with self._shift(pay) as shift:
            return shift.work(tickets, pay)

    def _shift(self, pay: Pay) -> Shift:
        return Shift(
            backbone=self._backbone,
            scoring=self._scoring,
            config=self._config,
            table=self._table,
            sizes=[self.group_size] * self._group_count,
            pay=pay,
        )

    def _pay(self, act: PolicyFunction, weight_version: int) -> Pay:
        return Pay(reward=self._config.reward, act=act, weight_version=weight_version)

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
