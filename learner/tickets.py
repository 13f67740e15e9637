"""Which episodes an iteration trains on: handed out here, checked in here, each trained exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from addiffusion.errors import CheckpointError, ContractError, RolloutError
from addiffusion.records import Episode, FailedEpisode, Prompt, Reference, Ticket
from addiffusion.seeds import derive_seed, generator


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolEntry:
    """One image to train on: a prompt, the seed of its noise, and what its full-length version scores."""

    prompt: Prompt
    seed: int
    reference: Reference | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerState:
    """What a ledger has to remember between iterations."""

    iteration: int = 0
    """The next iteration to be issued."""
    trained_count: int = 0
    """Tickets trained in all iterations before it."""
    failed_count: int = 0
    """Failures reported for tickets."""
    reissued_count: int = 0
    """Times a ticket was handed out again."""


class TicketLedger:
    """Tickets of every iteration as a pure function of (run seed, iteration, pool), and their book-keeping.

    Ticket number m of the run takes entry m mod P of the pool of P in the order of epoch m // P: every entry is
    trained equally often, whatever the batch size.
    """

    def __init__(
        self,
        pool: Sequence[PoolEntry],
        *,
        run_seed: int,
        batch_size: int,
        prices: tuple[float, float],
        max_reissues: int,
    ) -> None:
        """A ledger at its beginning.

        Args:
            pool: what there is to train on.
            run_seed: root of orders, action draws and prices.
            batch_size: tickets per iteration.
            prices: least and greatest price of an NFE; each ticket's is drawn log-uniformly between them.
            max_reissues: how often one ticket may be handed out again.
        """
        if not pool:
            raise ContractError("A ticket ledger needs at least one (prompt, seed) to draw tickets from.")
        self.batch_size = batch_size
        self.state = LedgerState()
        self._pool = tuple(pool)
        self._run_seed = run_seed
        self._prices = prices
        self._max_reissues = max_reissues
        self._open: dict[int, Ticket] = {}
        self._reissues: Counter[int] = Counter()

    def tickets(self, iteration: int) -> tuple[Ticket, ...]:
        """The tickets of ``iteration``, in the order of their ids."""
        first = iteration * self.batch_size
        return tuple(self._ticket(number) for number in range(first, first + self.batch_size))

    def issue(self, iteration: int) -> tuple[Ticket, ...]:
        """Open ``iteration`` and hand its tickets out. Opening an unfinished iteration again starts it afresh.

        Raises:
            ContractError: it is not the next iteration.
        """
        if iteration != self.state.iteration:
            raise ContractError(
                f"Iteration {iteration} can't be issued: the next one is {self.state.iteration}.",
                iteration=iteration,
                expected=self.state.iteration,
            )
        tickets = self.tickets(iteration)
        self._open = {ticket.ticket_id: ticket for ticket in tickets}
        self._reissues.clear()
        return tickets

    def check_in(self, episodes: Iterable[Episode]) -> None:
        """Take finished episodes in.

        Raises:
            ContractError: a ticket that is not open: never issued, or checked in before.
        """
        for episode in episodes:
            if self._open.pop(episode.ticket.ticket_id, None) is None:
                raise ContractError(
                    f"An episode of ticket {episode.ticket.ticket_id} came back, but that ticket is not open.",
                    ticket_id=episode.ticket.ticket_id,
                )

    def reissue(self, failed: Iterable[FailedEpisode]) -> tuple[Ticket, ...]:
        """Note failures and hand out again every ticket that is still open.

        Raises:
            RolloutError: a ticket has used up its reissues.
        """
        reasons = {failure.ticket.ticket_id: failure.reason for failure in failed}
        for ticket_id in self._open:
            self._reissues[ticket_id] += 1
            if self._reissues[ticket_id] > self._max_reissues:
                reason = reasons.get(ticket_id, "no worker returned it")
                raise RolloutError(
                    f"Ticket {ticket_id} was handed out {self._reissues[ticket_id]} times and failed each time; the "
                    f"last reason was: {reason}. Raise rollout.max_reissues if the cause is transient.",
                    ticket_id=ticket_id,
                    reason=reason,
                )
        self.state = replace(
            self.state,
            failed_count=self.state.failed_count + len(reasons),
            reissued_count=self.state.reissued_count + len(self._open),
        )
        return tuple(self._open.values())

    def close(self, iteration: int) -> None:
        """Note that ``iteration`` has been trained.

        Raises:
            ContractError: some of its tickets are still open.
        """
        if iteration != self.state.iteration or self._open:
            raise ContractError(
                f"Iteration {iteration} can't be closed: {len(self._open)} of its tickets are open.",
                iteration=iteration,
                open=sorted(self._open),
            )
        trained_count = self.state.trained_count + self.batch_size
        self.state = replace(self.state, iteration=iteration + 1, trained_count=trained_count)

    def restore(self, state: LedgerState) -> None:
        """Go on where ``state`` was taken.

        Raises:
            CheckpointError: the counts belong to another batch size.
        """
        if state.trained_count != state.iteration * self.batch_size:
            raise CheckpointError(
                f"The checkpoint has trained {state.trained_count} tickets in {state.iteration} iterations, which does "
                f"not fit ppo.batch_size={self.batch_size}: resume with the batch size of the run it comes from."
            )
        self.state = state
        self._open = {}

    def _ticket(self, number: int) -> Ticket:
        epoch, position = divmod(number, len(self._pool))
        entry = self._pool[epoch_order(self._run_seed, epoch, len(self._pool))[position]]
        return Ticket(
            ticket_id=number,
            prompt=entry.prompt,
            seed=entry.seed,
            action_seed=derive_seed(self._run_seed, "action", number),
            c_nfe=drawn_price(self._prices, self._run_seed, number),
            reference=entry.reference,
        )


def epoch_order(run_seed: int, epoch: int, count: int) -> list[int]:
    """The order in which an epoch goes through a pool of ``count`` entries."""
    return torch.randperm(count, generator=generator(run_seed, "tickets", epoch)).tolist()


def drawn_price(prices: tuple[float, float], run_seed: int, number: int) -> float:
    """The price of ticket ``number``: log-uniform between the two of ``prices``, or either where they are equal."""
    low, high = prices
    if low == high:
        return low
    share = float(torch.rand((), generator=generator(run_seed, "price", number), dtype=torch.float64))
    return low * (high / low) ** share
