"""Collection without a drain: slots that an iteration leaves free begin the tickets of the next ones.

Iteration n still trains exactly its own tickets, whoever finishes first: no length is favoured. What is bounded is the
lag: a ticket is handed out at most ``max_lag`` iterations before the one that trains it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from addiffusion.config import Config
from addiffusion.errors import ContractError
from addiffusion.records import Episode, Ticket, TicketId
from addiffusion.rollouts import Collected, Rollouts, workers_up
from learner.batch import Batch, BatchBuilder
from learner.dispatch import COUNTED_ROUNDS
from learner.tickets import TicketLedger


class CarryOver:
    """Tickets on their way through the workers, across iterations. A resumed run begins unfinished ones again."""

    def __init__(self, config: Config, *, ledger: TicketLedger, rollouts: Rollouts) -> None:
        self._most_per_worker = COUNTED_ROUNDS * config.rollout.slots
        self._max_lag, self._iterations = config.ppo.max_lag, config.ppo.iterations
        self._ledger, self._rollouts = ledger, rollouts
        self._waiting: deque[Ticket] = deque()
        self._under_way: set[TicketId] = set()
        self._finished: dict[TicketId, Episode] = {}
        self._issued_to: int | None = None
        """The first iteration whose tickets have not been handed out."""

    def collect(self, iteration: int) -> Batch:
        """The episodes of ``iteration``; what has been begun of later ones stays under way.

        Raises:
            RolloutError: a ticket has used up its reissues, or no worker is left.
            ContractError: a ticket came back that is not under way.
        """
        builder = BatchBuilder(iteration, self._ledger, oldest=iteration - self._max_lag)
        self._issue(iteration)
        wanted = {ticket.ticket_id for ticket in self._ledger.issue(iteration)}
        while not wanted <= self._finished.keys():
            collected = self._rollouts.advance(self._next())
            builder.note(collected)
            self._take(collected)
        episodes = [self._finished.pop(ticket_id) for ticket_id in wanted]
        self._ledger.check_in(episodes)
        return builder.build(episodes, ahead=[*self._finished.values()])

    def _issue(self, iteration: int) -> None:
        """Queue every iteration that may be begun by now."""
        first = iteration if self._issued_to is None else self._issued_to
        end = min(iteration + self._max_lag + 1, max(self._iterations, iteration + 1))
        for number in range(first, end):
            self._waiting += self._ledger.tickets(number)
        self._issued_to = max(first, end)

    def _next(self) -> list[Ticket]:
        """As many tickets as the workers that are up now have room for."""
        room = self._most_per_worker * workers_up(self._rollouts) - len(self._under_way)
        tickets = [self._waiting.popleft() for _ in range(max(0, min(room, len(self._waiting))))]
        self._under_way |= {ticket.ticket_id for ticket in tickets}
        return tickets

    def _take(self, collected: Collected) -> None:
        self._leave(episode.ticket for episode in collected.episodes)
        self._leave(failure.ticket for failure in collected.failed)
        self._finished |= {episode.ticket.ticket_id: episode for episode in collected.episodes}
        again = self._ledger.note_failures(collected.failed)
        self._waiting.extendleft(reversed(again))

    def _leave(self, tickets: Iterable[Ticket]) -> None:
        for ticket in tickets:
            if ticket.ticket_id not in self._under_way:
                raise ContractError(
                    f"Ticket {ticket.ticket_id} came back, but it is not under way.", ticket_id=ticket.ticket_id
                )
            self._under_way.discard(ticket.ticket_id)
