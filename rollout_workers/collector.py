"""Tickets in, episodes out, in one process: the loop every rollout worker runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from addiffusion.backbones.base import Backbone
from addiffusion.config import Config
from addiffusion.records import Ticket
from addiffusion.rollouts import Collected
from addiffusion.sampling.build import table_for
from addiffusion.sampling.engine import Engine
from addiffusion.scorers.base import Scoring
from rollout_workers.group import Group, Pay, PolicyFunction
from rollout_workers.intake import Intake
from rollout_workers.lane import ScoringLane, scoring_lane
from rollout_workers.sight import make_sight
from rollout_workers.stopwatch import Stopwatch

_log = logging.getLogger(__name__)


class Collector:
    """Rolls tickets out. A call leaves nothing behind that the next one could notice.

    Slots form up to two groups of equal size. Each has its own fixed network batch, so an episode is bitwise the same
    in either; while one group's images are being scored, the other one is in the network.
    """

    def __init__(self, *, backbone: Backbone, scoring: Scoring, config: Config) -> None:
        self._backbone = backbone
        self._scoring = scoring
        self._config = config
        self._slots = config.rollout.slots
        self._halved = False
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
            torch.OutOfMemoryError: not even half the slots fit.
        """
        try:
            return self._roll_out(tickets, act, weight_version)
        except torch.OutOfMemoryError:
            if self._halved or self._slots == 1:
                raise
        self._halved, before, self._slots = True, self._slots, self._slots // 2
        _log.warning(
            "out of memory with rollout.slots=%d: going on with %d; set rollout.slots=%d to start so.",
            before,
            self._slots,
            self._slots,
        )
        return self._roll_out(tickets, act, weight_version)

    def _roll_out(self, tickets: Sequence[Ticket], act: PolicyFunction, weight_version: int) -> Collected:
        timed = Stopwatch()
        intake = Intake(tickets, backbone=self._backbone, scoring=self._scoring, config=self._config)
        pay = Pay(reward=self._config.reward, act=act, weight_version=weight_version)
        with scoring_lane(self._scoring, timed) as lane:
            groups = [self._group(lane, intake, pay, timed) for _ in range(self._group_count)]
            while self._work(groups):
                pass
        return intake.outcome(timed.stage_s)

    @staticmethod
    def _work(groups: Sequence[Group]) -> bool:
        """Half a tick of each group after the other; False when no work is left."""
        for group in groups:
            group.settle()
            group.refill()
            if group.busy:
                group.advance()
        return any(group.busy for group in groups)

    def _group(self, lane: ScoringLane, intake: Intake, pay: Pay, timed: Stopwatch) -> Group:
        config = self._config
        engine = Engine(
            self._backbone,
            config.sampler,
            config.refine,
            slots=self.group_size,
            guidance_scale=config.backbone.guidance_scale,
            table=self._table,
        )
        sight = make_sight(config, backbone=self._backbone, scoring=self._scoring, intake=intake)
        return Group(engine, sight=sight, lane=lane, intake=intake, pay=pay, timed=timed)
