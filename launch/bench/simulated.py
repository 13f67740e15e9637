"""Workers whose rollouts are a sleep of known length: hundreds fit on a machine that could not run two.

Imports little, because every one of their processes pays for it.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

import ray

from addiffusion.records import Episode, Ticket
from addiffusion.rollouts import Collected

_TIMEOUT_S = 120.0


@dataclass(slots=True)
class _Session:
    """What one worker has been given in one session, which is its own."""

    lock: Lock = field(default_factory=Lock)
    """A worker does one call after the other, however many workers this process stands for."""
    tickets: deque[Ticket] = field(default_factory=deque[Ticket])
    """Unfinished ones."""
    version: int = -1
    """Of the weights it has fetched."""


class SimulatedWorkers:
    """Take weights, tickets and time as so many rollout workers do, and answer with episodes of real size.

    One process stands for several workers; each has a thread while it sleeps. A worker is known by the number of its
    session, which no other worker has.
    """

    def __init__(self, templates: Sequence[Episode], *, seconds_per_episode: float, stretch: int) -> None:
        """Workers without tickets.

        Args:
            templates: returned in turn.
            seconds_per_episode: sleep in place of an episode.
            stretch: most episodes that a call finishes.
        """
        self._templates, self._seconds, self._stretch = templates, seconds_per_episode, stretch
        self._sessions: defaultdict[int, _Session] = defaultdict(_Session)
        self._lock = Lock()

    def ping(self) -> str:
        """Alive."""
        return "pong"

    def work(
        self,
        tickets: Sequence[Ticket],
        *,
        session: int,
        weights: Sequence[ray.ObjectRef[Any]],
        weight_version: int,
        **_: Any,
    ) -> Collected:
        """Take ``tickets`` in, and after a sleep return those that a stretch of work finishes; the rest goes on.

        Args:
            tickets: new ones.
            session: of the worker.
            weights: one reference, in a list, so that it is fetched here.
            weight_version: of these; what was fetched before is not fetched again.
        """
        with self._lock:
            own = self._sessions[session]
        with own.lock:
            own.tickets.extend(tickets)
            if weight_version > own.version:  # of two calls that wait for the lock the later one may come first
                ray.get(weights[0], timeout=_TIMEOUT_S)
                own.version = weight_version
            done = [own.tickets.popleft() for _ in range(min(self._stretch, len(own.tickets)))]
            time.sleep(self._seconds * len(done))
            return Collected(episodes=tuple(self._episode(ticket, own.version) for ticket in done))

    def _episode(self, ticket: Ticket, version: int) -> Episode:
        template = self._templates[ticket.ticket_id % len(self._templates)]
        return replace(template, ticket=ticket, weight_version=version)
