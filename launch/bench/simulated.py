"""Workers whose rollouts are a sleep of measured length: eight of them fit on a machine that could not run eight.

Imports little, because every one of their processes pays for it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray

from addiffusion.records import Episode, Ticket
from addiffusion.rollouts import Collected

_TIMEOUT_S = 120.0


class SimulatedWorker:
    """Takes weights, tickets and time as a rollout worker does, and answers with episodes of real size."""

    def __init__(self, templates: Sequence[Episode], seconds_per_episode: float) -> None:
        self._templates = templates
        self._seconds = seconds_per_episode
        self._version = -1

    def ping(self) -> str:
        """Alive."""
        return "pong"

    def work(
        self,
        tickets: Sequence[Ticket],
        *,
        weights: Sequence[ray.ObjectRef[Any]],
        weight_version: int,
        **_: Any,
    ) -> Collected:
        """The templates in turn under the tickets' names, after a sleep."""
        if weight_version != self._version:
            ray.get(weights[0], timeout=_TIMEOUT_S)
            self._version = weight_version
        time.sleep(self._seconds * len(tickets))
        return Collected(episodes=tuple(self._episode(ticket) for ticket in tickets))

    def _episode(self, ticket: Ticket) -> Episode:
        template = self._templates[ticket.ticket_id % len(self._templates)]
        return replace(template, ticket=ticket, weight_version=self._version)
