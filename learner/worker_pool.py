"""Remote rollout workers over Ray: their calls, and the state of each: up, starting, lost."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from addiffusion.config import Config
from addiffusion.errors import AdDiffusionError, DeviceLostError, RolloutError
from addiffusion.rollouts import Collected
from learner.calls import POLL_S, Loss, Order
from learner.losses import Hazard, LossRecord, WorkerId

logger = logging.getLogger(__name__)

PING_PAUSE_S = 1.0
"""Between two questions whether a lost worker is back."""

NewWorkers: TypeAlias = Callable[[], Mapping[WorkerId, ActorHandle[Any]]]
"""Workers, by id, that have been started since it was last asked."""


class WorkerPool:
    """Implements ``learner.calls.Workers`` over actors that have ``work``, ``collect`` and ``ping``.

    A lost one is asked, again and again, until it answers or is dead for good; those that Ray may restart come back.
    """

    def __init__(
        self, actors: Mapping[WorkerId, ActorHandle[Any]], config: Config, new_workers: NewWorkers = dict
    ) -> None:
        """Take over workers that have been started.

        Args:
            actors: by worker id; all of them count as up.
            config: the run's.
            new_workers: finds those that were started later.
        """
        self._new_workers = new_workers
        self._start_timeout_s, self._timeout_s = config.cluster.start_timeout_s, config.rollout.timeout_s
        self._actors = dict(actors)
        self._up = set(actors)
        self._pings: dict[WorkerId, ray.ObjectRef] = {}
        self._next_ping: dict[WorkerId, float] = {}
        self.tried = set(actors)
        """Ids of workers that have answered a call since they were started; those of the start count from the start."""
        self.hazard = Hazard()
        self._losses = LossRecord(max_restarts=config.rollout.max_restarts)
        self._weights: dict[str, Any] = {"weights": [], "weight_version": -1}
        self.lost_count = 0
        """Times a worker was lost."""
        self.waited_s = 0.0
        """Wall clock spent waiting for answers."""

    @property
    def up(self) -> list[WorkerId]:
        """Ids of the workers that can be given work."""
        return sorted(self._up)

    @property
    def absent(self) -> list[WorkerId]:
        """Ids of the workers that have not started yet, or are lost."""
        return sorted(set(self._actors) - self._up)

    @property
    def hopeless(self) -> bool:
        """Whether no worker is up and none can come back."""
        return not self._up and not self._next_ping and not self._pings

    def actor(self, worker_id: WorkerId) -> ActorHandle[Any]:
        """The handle of a worker."""
        return self._actors[worker_id]

    def set_weights(self, weights: Any, version: int) -> None:
        """Put ``weights`` into the object store, once; each worker fetches them with its next call."""
        self._weights = {"weights": [ray.put(weights)], "weight_version": version}

    # ---------------------------------------------------------------- calls

    def submit(self, worker_id: WorkerId, order: Order) -> Hashable:
        """Queue a call of ``work``, or of ``collect`` for a baseline."""
        actor, job = self._actors[worker_id], order.job
        if job.baseline is not None:
            return actor.collect.remote(order.tickets, sampler=job.sampler, baseline=job.baseline, **self._weights)
        return actor.work.remote(
            order.tickets, session=order.session, sampler=job.sampler, more=order.more, **self._weights
        )

    def answered(self, references: Sequence[Hashable], *, timeout_s: float) -> list[Hashable]:
        """References of calls that have an answer or a loss; waits up to ``timeout_s`` seconds for the first."""
        waiting = cast("list[ray.ObjectRef[Any]]", list(references))
        started = time.perf_counter()
        ready, _ = ray.wait(waiting, num_returns=1, timeout=timeout_s)
        self.waited_s += time.perf_counter() - started
        return list(ready)

    def answer(self, worker_id: WorkerId, reference: Hashable) -> Collected | Loss:
        """The answer of a call that has one, or its loss.

        Raises:
            AdDiffusionError: what the worker raised on purpose (a defect or a wrong configuration, not a loss).
        """
        try:
            return ray.get(cast("ray.ObjectRef[Collected]", reference), timeout=self._timeout_s)
        except RayTaskError as error:
            cause = cause_of(error, worker_id)
            if not isinstance(cause, DeviceLostError):
                raise cause from error
            return Loss(reason=str(cause.facts["reason"]))
        except RayError as error:
            return Loss(reason=f"its process or its node is gone: {type(error).__name__}")

    # ---------------------------------------------------------------- states

    def finished(self) -> None:
        """Note that an episode was finished by any worker."""
        self._losses.finished()

    def lose(self, worker_id: WorkerId, reason: str, measured: str = "", *, restart: bool = False) -> None:
        """Count a worker as lost until it answers.

        Args:
            worker_id: of the worker.
            reason: of the loss, in words.
            measured: what was measured before it, in words.
            restart: end its process first, because it hangs.

        Raises:
            RolloutError: too many were lost in a row, and nothing was finished.
        """
        if worker_id not in self._up:
            return
        logger.warning("Rollout worker %d is lost (%s, %s); its tickets go on.", worker_id, reason, measured)
        self._up.discard(worker_id)
        self.tried.discard(worker_id)
        self.lost_count += 1
        if restart:
            ray.kill(self._actors[worker_id], no_restart=False)
        self._next_ping[worker_id] = time.monotonic() + self._losses.lost(worker_id, reason, measured)

    def revive(self) -> None:
        """Take in new workers and lost ones that have answered, and ask those that are due. Does not wait."""
        joined = self._new_workers()
        self._actors |= joined
        self._next_ping |= dict.fromkeys(joined, time.monotonic())
        for worker_id, due in list(self._next_ping.items()):
            if time.monotonic() >= due:
                del self._next_ping[worker_id]
                self._pings[worker_id] = self._actors[worker_id].ping.remote()
        if not self._pings:
            return
        answered, _ = ray.wait(list(self._pings.values()), num_returns=len(self._pings), timeout=0)
        for worker_id, ping in list(self._pings.items()):
            if ping in answered:
                del self._pings[worker_id]
                self._take_answer(worker_id, ping)

    def await_worker(self) -> None:
        """Wait until a worker is up, for ``cluster.start_timeout_s`` at most.

        Raises:
            RolloutError: none can come back, or none did.
        """
        since = time.monotonic()
        self.revive()
        while not self._up:
            waited_s = time.monotonic() - since
            if self.hopeless or waited_s > self._start_timeout_s:
                raise _no_worker_left(waited_s)
            time.sleep(POLL_S)
            self.revive()

    def _take_answer(self, worker_id: WorkerId, ping: ray.ObjectRef[Any]) -> None:
        try:
            ray.get(ping, timeout=PING_PAUSE_S)
        except ActorDiedError as error:
            logger.warning("Rollout worker %d is dead and will not be restarted: %s", worker_id, error)
        except RayError:  # restarting, or about to end
            self._next_ping[worker_id] = time.monotonic() + PING_PAUSE_S
        else:
            self._up.add(worker_id)
            self._losses.started(worker_id)
            logger.warning("Rollout worker %d is up; %d of %d are.", worker_id, len(self._up), len(self._actors))


def cause_of(error: RayTaskError, worker_id: WorkerId) -> AdDiffusionError:
    """What a worker raised, as an error of this project."""
    if isinstance(error.cause, AdDiffusionError):
        return error.cause
    return RolloutError(f"Rollout worker {worker_id} failed on purpose or by a defect: {error.cause!r}.")


def _no_worker_left(waited_s: float) -> RolloutError:
    """The error of a run without workers."""
    return RolloutError(
        f"No rollout worker is left, and none came back in {waited_s:.0f} s: the workers' log says why they ended.",
        waited_s=waited_s,
    )
