"""The rollout worker as RLlib's EnvRunner, around ``rollout_workers.worker.Worker``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

from addiffusion.memory import without_garbage_search

with without_garbage_search():  # RLlib brings torch and Ray's Tune, Train and Data: a third of what a worker imports
    import ray.rllib

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from addiffusion.backbones import load_backbone
from addiffusion.baseline import Baseline
from addiffusion.config import Config, SamplerSection
from addiffusion.errors import DeviceLostError
from addiffusion.metrics import Meters, NoMeters
from addiffusion.poisoned import device_losses_named, end_process
from addiffusion.policy import PolicyNetwork
from addiffusion.records import Ticket
from addiffusion.rollouts import Collected, Rollouts
from addiffusion.scorers.base import Scoring
from rollout_workers import metrics
from rollout_workers.worker import NO_WEIGHTS, Worker

LAST_WORDS_S = 1.0
"""Between the error that tells of a lost device and the end of its process: time for the error to be sent."""


class DiffusionRunner(EnvRunner, Checkpointable):
    """Rolls out the tickets it is handed. Holds nothing a restart would lose: weights come with every call.

    ``env_config`` holds ``config`` (the run's ``Config``), ``scoring`` (makes the ``Scoring``) and, if wanted,
    ``meters`` (makes the ``Meters`` by worker id) and ``backbone`` (makes a ``Backbone`` in place of the configured
    one). The runner RLlib makes in the driver's process is never given tickets in a distributed run, so it never loads
    a model. A process that has lost its device says so, once, and ends itself; Ray starts another one.
    """

    _title = "loading"  # Ray asks for the repr of an actor whose constructor has failed, too

    def __init__(self, *, config: AlgorithmConfig, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        parts: dict[str, Any] = dict(self.config.env_config)
        run_config: Config = parts["config"]
        self._timeout_s = run_config.rollout.timeout_s
        self.module: RLModule = self.config.get_rl_module_spec(spaces=self.get_spaces(), inference_only=True).build()
        self.worker = Worker(
            run_config,
            policy=cast("PolicyNetwork", cast("Any", self.module).policy),
            backbone=parts.get("backbone") or partial(load_backbone, run_config.backbone),
            scoring=parts["scoring"],
        )
        self._connect_scoring: Callable[[], Scoring] = parts["scoring"]
        self._baselines: dict[str, Rollouts] = {}
        self._device_lost: DeviceLostError | None = None
        make_meters = parts.get("meters")
        self._meters: Meters = make_meters(str(self.worker_index)) if make_meters else NoMeters()
        backbone = run_config.backbone
        self._title = (
            f"worker {self.worker_index}, {backbone.kind} on {backbone.device}, {run_config.rollout.slots} slots"
        )

    def __repr__(self) -> str:
        return f"DiffusionRunner({self._title})"

    def lay_out(self, sampler: SamplerSection, key: str) -> None:
        """``rollout_workers.worker.Worker.lay_out``, in this process."""
        with self._ending_with_its_device():
            self.worker.lay_out(sampler, key=key)

    def collect(
        self,
        tickets: Sequence[Ticket],
        *,
        sampler: SamplerSection | None = None,
        baseline: Baseline | None = None,
        weights: Sequence[ray.ObjectRef[Any]] = (),
        weight_version: int = NO_WEIGHTS,
    ) -> Collected:
        """Roll out ``tickets`` with the weights of ``weight_version``.

        Args:
            tickets: what to roll out.
            sampler: replaces the run's own sampler.
            baseline: draws in place of this worker's engine; made with its first tickets, and kept.
            weights: reference to the policy weights, wrapped so that Ray hands over the reference itself: the weights
                are fetched once per version, not once per call.
            weight_version: version of ``weights``.

        Raises:
            DeviceLostError: this process can't use its device any more, and is about to end.
        """
        with self._ending_with_its_device():
            self._take_weights(weights, weight_version)
            rollouts = self.worker if baseline is None else self._hosted(baseline)
            collected = rollouts.collect(tickets, sampler=sampler)
        self._report(collected)
        return collected

    def work(
        self,
        tickets: Sequence[Ticket],
        *,
        session: int,
        sampler: SamplerSection | None = None,
        more: bool = False,
        weights: Sequence[ray.ObjectRef[Any]] = (),
        weight_version: int = NO_WEIGHTS,
    ) -> Collected:
        """One stretch of ``rollout_workers.worker.Worker.work`` with the weights of ``weight_version``.

        Args:
            tickets: new work.
            session: whoever changes it has given up what was under way.
            sampler: replaces the run's own.
            more: the next call brings tickets.
            weights: as of ``collect``.
            weight_version: version of ``weights``.

        Raises:
            DeviceLostError: this process can't use its device any more, and is about to end.
        """
        with self._ending_with_its_device():
            self._take_weights(weights, weight_version)
            collected = self.worker.work(tickets, session=session, sampler=sampler, more=more)
        self._report(collected)
        return collected

    def ping(self) -> str:
        """RLlib's answer of a process that can be given tickets.

        Raises:
            DeviceLostError: it can't any more.
        """
        if self._device_lost is not None:
            raise self._device_lost
        return super().ping()

    @contextmanager
    def _ending_with_its_device(self) -> Generator[None]:
        """End this process soon after the first call that finds the device lost; calls until then fail likewise."""
        if self._device_lost is not None:
            raise self._device_lost
        try:
            with device_losses_named():
                yield
        except DeviceLostError as error:
            self._device_lost = error
            last = threading.Timer(LAST_WORDS_S, end_process, [error.message])
            last.daemon = True
            last.start()
            raise

    def _hosted(self, baseline: Baseline) -> Rollouts:
        if baseline.name not in self._baselines:
            self._baselines[baseline.name] = baseline.make(self._connect_scoring())
        return self._baselines[baseline.name]

    def _take_weights(self, weights: Sequence[ray.ObjectRef[Any]], weight_version: int) -> None:
        if weights and weight_version != self.worker.weight_version:
            self.worker.set_weights(ray.get(weights[0], timeout=self._timeout_s), weight_version)

    def _report(self, collected: Collected) -> None:
        record = self._meters.record
        record(metrics.EPISODES, len(collected.episodes))
        record(metrics.FAILED, len(collected.failed))
        record(metrics.NFE, sum(episode.nfe for episode in collected.episodes))
        record(metrics.NETWORK_EVALS, sum(episode.network_evals for episode in collected.episodes))
        record(metrics.WEIGHT_VERSION, self.worker.weight_version)
        for stage, seconds in collected.stage_s.items():
            record(metrics.STAGE_TIME, seconds, stage=stage)

    def sample(self, **kwargs: Any) -> Collected:
        """RLlib's name for ``collect``; needs the keyword ``tickets``."""
        return self.collect(**kwargs)

    def get_spaces(self) -> dict[str, tuple[Any, Any]]:
        """Observation and action space under every key RLlib asks for."""
        spaces = (self.config.observation_space, self.config.action_space)
        return dict.fromkeys((INPUT_ENV_SPACES, INPUT_ENV_SINGLE_SPACES, DEFAULT_MODULE_ID), spaces)

    def assert_healthy(self) -> None:
        """No check: only construction can fail before the first ticket."""

    def get_metrics(self) -> Any:
        """RLlib's own metrics, empty: numbers travel with the episodes."""
        return self.metrics.reduce()

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,  # noqa: ARG002 - RLlib's signature
    ) -> dict[str, Any]:
        """The policy's state and version, in RLlib's form."""
        if not self._check_component(COMPONENT_RL_MODULE, components, not_components):
            return {}
        state = self.module.get_state(inference_only=True)
        return {COMPONENT_RL_MODULE: {DEFAULT_MODULE_ID: state}, WEIGHTS_SEQ_NO: self.worker.weight_version}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take a policy state in RLlib's form: a dictionary or a reference to one, per module or of ours alone."""
        if COMPONENT_RL_MODULE not in state:
            return
        weights = state[COMPONENT_RL_MODULE]
        if isinstance(weights, ray.ObjectRef):
            weights = ray.get(weights, timeout=self._timeout_s)
        self.module.set_state(weights.get(DEFAULT_MODULE_ID, weights))
        self.worker.weight_version = state.get(WEIGHTS_SEQ_NO, NO_WEIGHTS)

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments that make a runner like this one."""
        return (), {"config": self.config}

    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        """The policy."""
        return [(COMPONENT_RL_MODULE, self.module)]
