"""Remote workers and whether they can be given work."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorDiedError, RayActorError

from addiffusion.errors import RolloutError

logger = logging.getLogger(__name__)

PING_PAUSE_S = 1.0
"""Between two questions whether a lost worker is back."""
POLL_S = 0.5
"""Longest sleep before deadlines and lost workers are looked at again; results end it at once."""

Recruit: TypeAlias = Callable[[], Mapping[int, ActorHandle[Any]]]
"""Workers, by id, that have been started since it was last asked."""


class Fleet:
    """Actors that have ``ping``. A lost one is asked, again and again, until it answers or is dead for good."""

    def __init__(self, actors: Mapping[int, ActorHandle[Any]], recruit: Recruit = dict) -> None:
        """Take over ``actors`` (by worker id), all of which count as up. ``recruit`` finds more."""
        self._recruit = recruit
        self._actors = dict(actors)
        self._up = set(actors)
        self._pings: dict[int, ray.ObjectRef] = {}
        self._next_ping: dict[int, float] = {}
        self.lost_count = 0
        """Times a worker was lost."""

    @property
    def up(self) -> list[int]:
        """Ids of the workers that can be given work."""
        return sorted(self._up)

    @property
    def absent(self) -> list[int]:
        """Ids of the workers that have not started yet, or are lost."""
        return sorted(set(self._actors) - self._up)

    @property
    def hopeless(self) -> bool:
        """Whether no worker is up and none can come back."""
        return not self._up and not self._next_ping and not self._pings

    def actor(self, worker_id: int) -> ActorHandle[Any]:
        """The handle of a worker."""
        return self._actors[worker_id]

    def lose(self, worker_id: int, reason: str, *, restart: bool = False) -> None:
        """Count a worker as lost until it answers; ``restart`` ends its process first (it hangs)."""
        if worker_id not in self._up:
            return
        logger.warning("Rollout worker %d is lost (%s); its tickets go to the others.", worker_id, reason)
        self._up.discard(worker_id)
        self.lost_count += 1
        if restart:
            ray.kill(self._actors[worker_id], no_restart=False)
        self._next_ping[worker_id] = time.monotonic()

    def revive(self) -> None:
        """Take in new workers and lost ones that have answered, and ask those that are due. Does not wait."""
        recruits = self._recruit()
        self._actors |= recruits
        self._next_ping |= dict.fromkeys(recruits, time.monotonic())
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

    def await_worker(self, limit_s: float) -> None:
        """Wait until a worker is up.

        Raises:
            RolloutError: none can come back, or none did in ``limit_s``.
        """
        since = time.monotonic()
        self.revive()
        while not self._up:
            waited_s = time.monotonic() - since
            if self.hopeless or waited_s > limit_s:
                raise _no_worker_left(waited_s)
            time.sleep(POLL_S)
            self.revive()

    def _take_answer(self, worker_id: int, ping: ray.ObjectRef[Any]) -> None:
        try:
            ray.get(ping, timeout=PING_PAUSE_S)
        except ActorDiedError as error:
            logger.warning("Rollout worker %d is dead and will not be restarted: %s", worker_id, error)
        except RayActorError:  # restarting
            self._next_ping[worker_id] = time.monotonic() + PING_PAUSE_S
        else:
            self._up.add(worker_id)
            logger.warning("Rollout worker %d is up; %d of %d are.", worker_id, len(self._up), len(self._actors))


def _no_worker_left(waited_s: float) -> RolloutError:
    """Nobody is there to roll anything out."""
    return RolloutError(
        f"No rollout worker is left, and none came back in {waited_s:.0f} s: the workers' log says why they ended. The "
        "run can be resumed from its last checkpoint.",
        waited_s=waited_s,
    )
