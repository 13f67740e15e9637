"""Which episodes an iteration trains on: handed out here, checked in here, each trained exactly once."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from addiffusion.errors import CheckpointError, ContractError, RolloutError
from addiffusion.records import Episode, FailedEpisode, Prompt, Reference, Ticket, TicketId
from addiffusion.seeds import derive_seed, generator
from addiffusion.setting import Setting
from learner.curriculum import Stage

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolEntry:
    """One image to train on: a prompt, the seed of its noise, and what its full-length version scores."""

    prompt: Prompt
    seed: int
    reference: Reference | None = None
    setting: Setting | None = None


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


WHOLE_POOL = (Stage(name="full", first_iteration=0, tiers=None),)


class TicketLedger:
    """Tickets of every iteration as a pure function of (run seed, iteration, pool), and their book-keeping.

    Ticket number m of a stage takes entry m mod P of the stage's pool of P in the order of epoch m // P: every entry is
    trained equally often, whatever the batch size. Without a curriculum, the run is one stage.
    """

    def __init__(  # noqa: PLR0913 - what tickets are made of
        self,
        pool: Sequence[PoolEntry],
        *,
        run_seed: int,
        batch_size: int,
        prices: tuple[float, float],
        max_reissues: int,
        keep_images: bool = True,
        stages: Sequence[Stage] = WHOLE_POOL,
    ) -> None:
        """A ledger at its beginning.

        Args:
            pool: what there is to train on.
            run_seed: root of orders, action draws and prices.
            batch_size: tickets per iteration.
            prices: least and greatest price of an NFE; each ticket's is drawn log-uniformly between them.
            max_reissues: how often one ticket may be handed out again.
            keep_images: whether episodes bring their images along.
            stages: what part of the pool is drawn from when.
        """
        if not pool:
            raise ContractError("A ticket ledger needs at least one (prompt, seed) to draw tickets from.")
        self.batch_size = batch_size
        self.state = LedgerState()
        self._pools = [(stage, tuple(entry for entry in pool if stage.holds(entry.prompt))) for stage in stages]
        self._run_seed = run_seed
        self._prices = prices
        self._max_reissues = max_reissues
        self._keep_images = keep_images
        self._open: dict[TicketId, Ticket] = {}
        self._reissues: Counter[TicketId] = Counter()

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
            RolloutError: a ticket has used up its reissues, or nothing comes of them.
        """
        failed = tuple(failed)
        _refuse_final(failed)
        reasons = {failure.ticket.ticket_id: failure.reason for failure in failed}
        again = {ticket_id: reasons.get(ticket_id, "no worker returned it") for ticket_id in self._open}
        self._count(again, failed_count=len(reasons))
        return tuple(self._open.values())

    def _count(self, again: Mapping[TicketId, str], *, failed_count: int) -> None:
        """Note tickets that are handed out again, and why."""
        for ticket_id, reason in again.items():
            self._reissues[ticket_id] += 1
            if self._reissues[ticket_id] > self._max_reissues:
                raise RolloutError(
                    f"Ticket {ticket_id} was handed out {self._reissues[ticket_id]} times and failed each time; the "
                    f"last reason was: {reason}. Raise rollout.max_reissues if the cause is transient.",
                    ticket_id=ticket_id,
                    reason=reason,
                )
        if again:
            _log.warning(
                "%d of the iteration's images failed and are drawn again; the first one: %s",
                len(again),
                next(iter(again.values())),
            )
        self.state = replace(
            self.state,
            failed_count=self.state.failed_count + failed_count,
            reissued_count=self.state.reissued_count + len(again),
        )

    def note_failures(self, failed: Sequence[FailedEpisode]) -> tuple[Ticket, ...]:
        """Note failures of tickets that may belong to any iteration, and hand these tickets out again.

        Raises:
            RolloutError: a ticket has used up its reissues, or nothing comes of them.
        """
        _refuse_final(failed)
        self._count({failure.ticket.ticket_id: failure.reason for failure in failed}, failed_count=len(failed))
        return tuple(failure.ticket for failure in failed)

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
        entry = self._entry(number)
        return Ticket(
            ticket_id=TicketId(number),
            prompt=entry.prompt,
            seed=entry.seed,
            action_seed=derive_seed(self._run_seed, "action", number),
            c_nfe=drawn_price(self._prices, self._run_seed, number),
            setting=entry.setting,
            reference=entry.reference,
            keep_image=self._keep_images,
        )

    def _entry(self, number: int) -> PoolEntry:
        iteration = number // self.batch_size
        stage, pool = next(pair for pair in reversed(self._pools) if pair[0].first_iteration <= iteration)
        epoch, position = divmod(number - stage.first_iteration * self.batch_size, len(pool))
        return pool[epoch_order(self._run_seed, epoch, len(pool))[position]]


def _refuse_final(failed: Iterable[FailedEpisode]) -> None:
    """Raise on the first failure that would happen again: an iteration trains all of its tickets, or none."""
    for failure in failed:
        if failure.final:
            ticket = failure.ticket
            raise RolloutError(
                f"Ticket {ticket.ticket_id} ({ticket.prompt.text!r}, seed {ticket.seed}) can't be trained on: "
                f"{failure.reason}. Leave that prompt out, or raise rollout.max_reissues if it was chance.",
                ticket_id=ticket.ticket_id,
                reason=failure.reason,
            )


@lru_cache(maxsize=8)  # asked for by every ticket of an epoch
def epoch_order(run_seed: int, epoch: int, count: int) -> tuple[int, ...]:
    """The order in which an epoch of a stage goes through its pool of ``count`` entries."""
    return tuple(torch.randperm(count, generator=generator(run_seed, "tickets", epoch)).tolist())


def drawn_price(prices: tuple[float, float], run_seed: int, number: int) -> float:
    """The price of ticket ``number``: log-uniform between the two of ``prices``, or either where they are equal."""
    low, high = prices
    if low == high:
        return low
    share = float(torch.rand((), generator=generator(run_seed, "price", number), dtype=torch.float64))
    return low * (high / low) ** share
