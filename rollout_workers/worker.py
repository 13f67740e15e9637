"""One rollout worker without Ray: a collector and the policy it asks. A serial run uses it as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from addiffusion.backbones.base import Backbone
from addiffusion.config import Config, SamplerSection
from addiffusion.config.sampling import steps_named
from addiffusion.errors import ContractError, ScorerError
from addiffusion.memory import keep_freed_memory
from addiffusion.poisoned import device_losses_named, is_poisoned
from addiffusion.policy import PolicyNetwork
from addiffusion.records import FailedEpisode, Ticket
from addiffusion.rollouts import Collected
from addiffusion.scorers.base import Scoring, StrictScoring
from addiffusion.threads import torch_threads
from rollout_workers.collector import Collector

NO_WEIGHTS = -1
"""Version of a policy that has not been given any weights yet."""


class Worker:
    """Implements ``addiffusion.rollouts.Rollouts`` in this process.

    Works on one torch thread: network outputs are then the same in every process, however many cores it has.
    """

    def __init__(
        self,
        config: Config,
        *,
        policy: PolicyNetwork,
        backbone: Callable[[], Backbone],
        scoring: Callable[[], Scoring],
    ) -> None:
        """Nothing is loaded before the first ticket.

        Args:
            config: the run's configuration.
            policy: the network whose weights ``set_weights`` replaces.
            backbone: loads the diffusion model, once.
            scoring: connects to the scorers, once.
        """
        self._config = config
        self._policy = policy.eval()
        self._load_backbone = backbone
        self._connect_scoring = scoring
        self._parts: tuple[Backbone, Scoring] | None = None
        self._collectors: dict[SamplerSection, Collector] = {}
        self._session = 0
        self._ahead = Collected(episodes=())
        self.weight_version = NO_WEIGHTS

    def set_weights(self, weights: Mapping[str, NDArray[np.float32]], version: int) -> None:
        """Act with ``weights`` (state of the policy network) from now on."""
        self._policy.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()})
        self.weight_version = version

    def lay_out(self, sampler: SamplerSection, *, key: str = "sampler.num_steps") -> None:
        """Load the model, once, and lay out a schedule on it, as the first ticket for that schedule would.

        Args:
            sampler: the schedule.
            key: what says how many steps it has, for messages.

        Raises:
            UsageError: the model can't be loaded, or can't follow the schedule.
            DeviceLostError: this process can't use its device any more.
        """
        with steps_named(key):
            self.collect((), sampler=sampler)

    def collect(self, tickets: Sequence[Ticket], *, sampler: SamplerSection | None = None) -> Collected:
        """Roll out ``tickets``; when the scorers don't answer, every ticket comes back as failed.

        Raises:
            ContractError: tickets ask the policy, but it has no weights.
            RolloutError: an image has no score, and ``scorers.on_score_error`` is ``stop``.
            DeviceLostError: this process can't use its device any more.
        """
        self._require_weights(tickets)
        with torch_threads(1), device_losses_named():
            try:
                collector = self._collector(sampler or self._config.sampler)
                return collector.collect(tickets, self._act, weight_version=self.weight_version)
            except ScorerError as error:
                if is_poisoned(error):
                    raise
                return _all_failed(tickets, error)

    def advance(self, tickets: Sequence[Ticket]) -> Collected:
        """One stretch of work (``work``); returns what the stretch before it has finished.

        One stretch late, because remote workers answer one stretch late: so that a serial run is their twin.
        """
        finished, self._ahead = self._ahead, self.work(tickets)
        return finished

    def work(
        self,
        tickets: Sequence[Ticket],
        *,
        session: int = 0,
        sampler: SamplerSection | None = None,
        more: bool = False,
    ) -> Collected:
        """Take ``tickets`` in, work for ``rollout.carry_ticks`` ticks, and return what has ended; the rest goes on.

        When the scorers don't answer, every ticket that was taken in and not returned comes back as failed.

        Args:
            tickets: new work.
            session: whoever changes it has given up what was under way: it is forgotten.
            sampler: replaces the run's own.
            more: the next call brings tickets, so that this one need not go on with slots that idle.

        Raises:
            ContractError: tickets ask the policy, but it has no weights.
            RolloutError: an image has no score, and ``scorers.on_score_error`` is ``stop``.
            DeviceLostError: this process can't use its device any more.
        """
        self._require_weights(tickets)
        self._follow(session)
        ticks, version = self._config.rollout.carry_ticks, self.weight_version
        with torch_threads(1), device_losses_named():
            collector = self._collector(sampler or self._config.sampler)
            try:
                return collector.carry(tickets, self._act, weight_version=version, ticks=ticks, more=more)
            except ScorerError as error:
                if is_poisoned(error):
                    raise
                return _all_failed(collector.abandon(), error)

    def _follow(self, session: int) -> None:
        """Forget what is under way if it belongs to another session."""
        if session != self._session:
            self._session = session
            for collector in self._collectors.values():
                collector.abandon()

    def _require_weights(self, tickets: Sequence[Ticket]) -> None:
        if self.weight_version == NO_WEIGHTS and any(ticket.forced is None for ticket in tickets):
            raise ContractError("The rollout worker was asked for decisions before it was given policy weights.")

    def _collector(self, sampler: SamplerSection) -> Collector:
        if self._parts is None:
            self._parts = self._load_backbone(), self._scoring()
            if self._parts[0].device.type == "cpu":
                keep_freed_memory()
        if sampler not in self._collectors:
            backbone, scoring = self._parts
            config = self._config.model_copy(update={"sampler": sampler})
            self._collectors[sampler] = Collector(backbone=backbone, scoring=scoring, config=config)
        return self._collectors[sampler]

    def _scoring(self) -> Scoring:
        scoring = self._connect_scoring()
        return StrictScoring(scoring) if self._config.scorers.on_score_error == "stop" else scoring

    def _act(self, phi: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return self._policy(torch.from_numpy(phi)).numpy()


def _all_failed(tickets: Sequence[Ticket], error: ScorerError) -> Collected:
    return Collected(
        episodes=(),
        failed=tuple(
            FailedEpisode(ticket=ticket, reason=error.message)
            for ticket in sorted(tickets, key=lambda ticket: ticket.ticket_id)
        ),
    )
