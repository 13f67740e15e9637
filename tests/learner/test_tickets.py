from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from addiffusion.config import RunSection
from addiffusion.errors import CheckpointError, ContractError, RolloutError
from addiffusion.records import Episode, FailedEpisode, Ticket
from learner.tickets import LedgerState, TicketLedger, drawn_price, epoch_order
from learner.training import build_ledger
from tests.learner.toy import WIDTH, toy_config, toy_episode, toy_pool


def make_ledger(*, pool_size: int = 12, batch_size: int = 8, run_seed: int = 5, max_reissues: int = 2) -> TicketLedger:
    return TicketLedger(
        toy_pool(pool_size), run_seed=run_seed, batch_size=batch_size, prices=(0.02, 0.02), max_reissues=max_reissues
    )


def episode_of(ticket: Ticket) -> Episode:
    return toy_episode(ticket, phi=np.zeros((1, WIDTH), np.float32), actions=[1], rewards=[0.0])


def failure_of(ticket: Ticket) -> FailedEpisode:
    return FailedEpisode(ticket=ticket, reason="it rained")


def test_tickets_are_a_pure_function_of_seed_and_iteration() -> None:
    assert make_ledger().tickets(7) == make_ledger().tickets(7)
    assert make_ledger().tickets(7) != make_ledger(run_seed=6).tickets(7)
    assert [ticket.ticket_id for ticket in make_ledger().tickets(7)] == list(range(56, 64))
    assert {ticket.c_nfe for ticket in make_ledger().tickets(7)} == {0.02}
    assert len({ticket.action_seed for ticket in make_ledger().tickets(7)}) == 8


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 12))
def test_every_pool_entry_is_drawn_equally_often(pool_size: int, batch_size: int, iterations: int) -> None:
    ledger = make_ledger(pool_size=pool_size, batch_size=batch_size)
    draws = Counter(ticket.seed for n in range(iterations) for ticket in ledger.tickets(n))
    counts = [draws[entry.seed] for entry in toy_pool(pool_size)]
    assert sum(counts) == iterations * batch_size
    assert max(counts) - min(counts) <= 1


def test_the_order_of_an_epoch_is_drawn_once_not_by_every_ticket(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    real = torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda count, **options: drawn.append(count) or real(count, **options))
    epoch_order.cache_clear()
    make_ledger(pool_size=10, batch_size=30).tickets(0)
    assert drawn == [10, 10, 10]


def test_a_ticket_comes_back_unchanged_until_it_succeeds() -> None:
    ledger = make_ledger()
    tickets = ledger.issue(0)
    ledger.check_in(map(episode_of, tickets[2:]))
    assert ledger.reissue(map(failure_of, tickets[:1])) == tickets[:2]  # the second was not heard of at all
    ledger.check_in(map(episode_of, tickets[:2]))
    assert ledger.reissue([]) == ()
    ledger.close(0)
    assert ledger.state == LedgerState(iteration=1, trained_count=8, failed_count=1, reissued_count=2)


def test_a_ticket_that_keeps_failing_ends_the_run_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    ledger = make_ledger(max_reissues=2)
    tickets = ledger.issue(0)
    ledger.reissue(map(failure_of, tickets))
    assert (
        f"{len(tickets)} of the iteration's images failed and are drawn again; the first one: it rained" in caplog.text
    )
    ledger.reissue(map(failure_of, tickets))
    with pytest.raises(RolloutError, match=r"Ticket 0 was handed out 3 times .* it rained"):
        ledger.reissue(map(failure_of, tickets))


def test_a_ticket_that_ends_its_workers_is_not_handed_out_again() -> None:
    ledger = make_ledger()
    ticket = replace(ledger.issue(0)[3], seed=7)
    final = replace(failure_of(ticket), reason="it was alone on its worker 3 times", final=True)
    for hand_out in (ledger.reissue, ledger.note_failures):
        with pytest.raises(RolloutError, match=r"Ticket 3 \('prompt \d', seed 7\) .* alone on its worker 3 times"):
            hand_out([final])


def test_training_brings_images_along_only_to_record_them() -> None:
    for recorded in (True, False):
        config = toy_config().model_copy(update={"run": RunSection(record_episodes=recorded)})
        assert {ticket.keep_image for ticket in build_ledger(config, toy_pool()).tickets(0)} == {recorded}


def test_no_ticket_is_trained_twice_and_none_from_elsewhere() -> None:
    ledger = make_ledger()
    tickets = ledger.issue(0)
    ledger.check_in([episode_of(tickets[0])])
    for ticket in (tickets[0], replace(tickets[0], ticket_id=99)):
        with pytest.raises(ContractError, match="not open"):
            ledger.check_in([episode_of(ticket)])


def test_an_iteration_closes_only_when_complete_and_in_order() -> None:
    ledger = make_ledger()
    tickets = ledger.issue(0)
    ledger.check_in(map(episode_of, tickets[1:]))
    with pytest.raises(ContractError, match="1 of its tickets"):
        ledger.close(0)
    with pytest.raises(ContractError, match="the next one is 0"):
        ledger.issue(1)


def test_an_unfinished_iteration_can_be_issued_afresh() -> None:
    ledger = make_ledger()
    ledger.check_in([episode_of(ledger.issue(0)[0])])
    assert ledger.issue(0) == ledger.tickets(0)
    ledger.check_in(map(episode_of, ledger.tickets(0)))
    ledger.close(0)
    assert ledger.state.trained_count == 8


def test_restore_goes_on_and_refuses_another_batch_size() -> None:
    ledger = make_ledger()
    ledger.restore(LedgerState(iteration=3, trained_count=24))
    assert ledger.issue(3) == make_ledger().tickets(3)
    with pytest.raises(CheckpointError, match="batch_size=8"):
        ledger.restore(LedgerState(iteration=3, trained_count=30))


def test_an_empty_pool_is_refused() -> None:
    with pytest.raises(ContractError, match="at least one"):
        make_ledger(pool_size=0)


def test_prices_are_drawn_evenly_in_their_logarithm_by_ticket() -> None:
    prices = [drawn_price((1e-3, 1e-1), 5, number) for number in range(400)]
    assert prices == [drawn_price((1e-3, 1e-1), 5, number) for number in range(400)]
    assert min(prices) >= 1e-3
    assert max(prices) <= 1e-1
    shares, _ = np.histogram(np.log10(prices), bins=4, range=(-3, -1))
    assert shares.min() > 70
    assert drawn_price((0.02, 0.02), 5, 7) == 0.02


def test_tickets_carry_their_prices() -> None:
    ledger = TicketLedger(toy_pool(), run_seed=5, batch_size=8, prices=(1e-3, 1e-1), max_reissues=2)
    assert [ticket.c_nfe for ticket in ledger.tickets(1)] == [drawn_price((1e-3, 1e-1), 5, n) for n in range(8, 16)]
