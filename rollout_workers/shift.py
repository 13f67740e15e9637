"""Slots at work on tickets that may keep coming: what is unfinished at the end of one call goes on with the next."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from addiffusion.backbones.base import Backbone
from addiffusion.config import Config
from addiffusion.records import Ticket
from addiffusion.rollouts import Collected
from addiffusion.sampling.engine import Engine
from addiffusion.sampling.solver_tables.table import SolverTable
from addiffusion.scorers.base import Scoring
from rollout_workers.async_scorer import scoring_lane
from rollout_workers.group import Group, Pay
from rollout_workers.observation_builder import make_sight
from rollout_workers.stopwatch import Stopwatch
from rollout_workers.ticket_queue import Intake


class Shift:
    """Groups of slots with the tickets they share, and the thread on which their images are scored."""

    def __init__(
        self,
        *,
        backbone: Backbone,
        scoring: Scoring,
        config: Config,
        table: SolverTable,
        sizes: Sequence[int],
        pay: Pay,
    ) -> None:
        """Groups of ``sizes`` slots, without work as yet."""
        self._timed = Stopwatch()
        self._stack = ExitStack()
        lane = self._stack.enter_context(scoring_lane(scoring, self._timed))
        self._intake = Intake(backbone=backbone, scoring=scoring, config=config)
        self._groups = [
            Group(
                Engine(
                    backbone,
                    config.sampler,
                    config.refine,
                    slots=slots,
                    guidance_scale=config.backbone.guidance_scale,
                    table=table,
                ),
                sight=make_sight(config, backbone=backbone, scoring=scoring, intake=self._intake),
                lane=lane,
                intake=self._intake,
                pay=pay,
                timed=self._timed,
            )
            for slots in sizes
        ]

    @property
    def open_tickets(self) -> tuple[Ticket, ...]:
        """Tickets that ``work`` has not returned as yet."""
        return self._intake.open_tickets

    def work(self, tickets: Sequence[Ticket], pay: Pay, *, ticks: int | None = None, more: bool = False) -> Collected:
        """Take ``tickets`` in, work for ``ticks`` ticks of each group (None: to the end), and return what has ended.

        With ``more``, other tickets are on their way: work ends after the tick that leaves a slot without one.

        Raises:
            ContractError: a ticket is open already, or the policy returns another shape.
            ScorerError: the scorers gave no answer at all.
        """
        for group in self._groups:
            group.follow(pay)
        self._intake.add(tickets)
        done_count = 0
        while (ticks is None or done_count < ticks) and self._tick():
            done_count += 1
            if more and self._runs_dry():
                break
        return self._intake.outcome(self._timed.take())

    def _tick(self) -> bool:
        """Half a tick of each group after the other; False when no work is left."""
        for group in self._groups:
            group.settle()
            group.refill()
            if group.busy:
                group.advance()
        return any(group.busy for group in self._groups)

    def _runs_dry(self) -> bool:
        return not self._intake.waiting and any(group.has_room for group in self._groups)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
