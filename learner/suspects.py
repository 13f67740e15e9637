"""Tickets that wait for a worker, and which of them may be what ends workers."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence

from addiffusion.records import FailedEpisode, Ticket


class WaitingTickets:
    """Tickets without a worker. Those a lost worker had are suspects: they are kept apart, in ever smaller groups.

    A group is given to a worker that has nothing else. If that is lost too, the group is halved, until the culprit is
    alone. Only a ticket that was alone on a worker that was lost is blamed for it: a worker that is killed by chance
    costs its tickets nothing.
    """

    def __init__(self, *, max_reissues: int) -> None:
        """A ticket may be blamed ``max_reissues`` times and be handed out again."""
        self.fresh: deque[Ticket] = deque()
        self.groups: deque[tuple[Ticket, ...]] = deque()
        """Suspects."""
        self._max_reissues = max_reissues
        self._blamed: Counter[int] = Counter()

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

    def lost(self, tickets: Sequence[Ticket], reason: str) -> FailedEpisode | None:
        """Tickets whose worker was lost for ``reason``; returns a ticket that is refused from now on."""
        if len(tickets) != 1:
            middle = (len(tickets) + 1) // 2
            self.groups.extend(tuple(half) for half in (tickets[:middle], tickets[middle:]) if half)
            return None
        (ticket,) = tickets
        self._blamed[ticket.ticket_id] += 1
        if self._blamed[ticket.ticket_id] > self._max_reissues:
            return self._refused(ticket, reason)
        self.groups.append((ticket,))
        return None

    def _refused(self, ticket: Ticket, reason: str) -> FailedEpisode:
        count = self._blamed.pop(ticket.ticket_id)
        return FailedEpisode(
            ticket=ticket,
            reason=f"it was alone on its worker {count} times, and each time the worker was lost (last: {reason})",
            facts={"losses": count},
            final=True,
        )
