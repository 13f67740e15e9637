"""Tickets that wait for a worker, those apart that may be what ends workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from math import prod

from addiffusion.records import FailedEpisode, Ticket, TicketId
from learner.losses import Hazard

_TOO_UNLIKELY = 1e-3


class WaitingTickets:
    """Tickets without a worker. Those a lost worker had are suspects: they are kept apart, in ever smaller groups.

    A group is given to a worker that has nothing else. If that is lost too, the group is halved, until the culprit is
    alone. Only a ticket that was alone on a worker that was lost is blamed for it, and it is refused only when chance
    does not explain its losses: where workers are killed all the time, many of them are needed.
    """

    def __init__(self, *, max_reissues: int, hazard: Hazard) -> None:
        """A ticket may be blamed ``max_reissues`` times in any case, and be handed out again."""
        self._hazard = hazard
        self.fresh: deque[Ticket] = deque()
        self.groups: deque[tuple[Ticket, ...]] = deque()
        """Suspects."""
        self._max_reissues = max_reissues
        self._blamed: dict[TicketId, list[float]] = {}
        """Seconds that each ticket was alone on each worker that was lost then."""

    def __bool__(self) -> bool:
        return bool(self.fresh or self.groups)

    def add(self, tickets: Iterable[Ticket]) -> None:
        """New tickets."""
        self.fresh.extend(tickets)

    def take_back(self, tickets: Sequence[Ticket], *, suspect: bool) -> None:
        """Tickets whose worker is there, but has to begin them again."""
        if suspect:
            self.groups.appendleft(tuple(tickets))
        else:
            self.fresh.extendleft(reversed(tickets))

    def lost(self, tickets: Sequence[Ticket], reason: str, *, seconds: float) -> FailedEpisode | None:
        """Tickets whose worker was lost for ``reason`` after so long; returns a ticket that is refused from now on."""
        if len(tickets) != 1:
            middle = (len(tickets) + 1) // 2
            self.groups.extend(tuple(half) for half in (tickets[:middle], tickets[middle:]) if half)
            return None
        (ticket,) = tickets
        blamed = self._blamed.setdefault(ticket.ticket_id, [])
        blamed.append(seconds)
        if len(blamed) > self._max_reissues and self._by_chance(blamed) < _TOO_UNLIKELY:
            return self._refused(ticket, reason)
        self.groups.append((ticket,))
        return None

    def _by_chance(self, blamed: Sequence[float]) -> float:
        """Probability that a harmless ticket has such losses."""
        return prod(self._hazard.chance(seconds, own=len(blamed)) for seconds in blamed)

    def _refused(self, ticket: Ticket, reason: str) -> FailedEpisode:
        count = len(self._blamed.pop(ticket.ticket_id))
        return FailedEpisode(
            ticket=ticket,
            reason=f"it was alone on its worker {count} times, and each time the worker was lost (last: {reason})",
            facts={"losses": count},
            final=True,
        )
