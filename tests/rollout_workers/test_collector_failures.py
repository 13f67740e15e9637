"""What can go wrong with a ticket stays with that ticket."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from addiffusion.actions import Action
from addiffusion.backbones.base import PromptEmbedding
from addiffusion.errors import ContractError, RolloutError
from addiffusion.records import Episode, Reference
from rollout_workers.collector import Collector
from tests.fakes import DIVERGENT, UNSCORABLE, ToyBackbone, ToyScoring, make_prompt
from tests.rollout_workers.rollouts import (
    assert_same,
    hashed_policy,
    make_collector,
    make_config,
    make_tickets,
    refuse_to_act,
    run_tickets,
)


class SmallBackbone(ToyBackbone):
    """Has memory for so many rows."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self._rows = rows

    def denoise(self, z: Tensor, *args: Any) -> Tensor:
        if len(z) > self._rows:
            raise torch.OutOfMemoryError("too many rows")
        return super().denoise(z, *args)


class FullBackbone(ToyBackbone):
    """Has no memory left for what is allocated with the slots, until somebody else has gone."""

    def __init__(self) -> None:
        super().__init__()
        self._full = True

    def uncond(self) -> PromptEmbedding:
        if self._full:
            self._full = False
            raise torch.OutOfMemoryError("no room for slots")
        return super().uncond()


def small(rows: int, *, slots: int) -> Collector:
    return Collector(backbone=SmallBackbone(rows), scoring=ToyScoring(), config=make_config(slots=slots))


def test_slots_are_halved_once_when_memory_runs_out(caplog: pytest.LogCaptureFixture) -> None:
    collector = small(4, slots=4)
    episodes = collector.collect(make_tickets(5), hashed_policy, weight_version=1).episodes
    assert_same(episodes, run_tickets(make_config(slots=2), make_tickets(5)))
    assert "out of memory with rollout.slots=4: going on with 2; set rollout.slots=2 to start so." in caplog.text
    collector.collect(make_tickets(1), hashed_policy, weight_version=1)
    assert len(caplog.records) == 1


def test_carried_episodes_begin_again_with_half_the_slots(caplog: pytest.LogCaptureFixture) -> None:
    collector, episodes = small(4, slots=4), list[Episode]()
    tickets = make_tickets(5)
    while len(episodes) < 5:
        episodes += collector.carry(tickets, hashed_policy, weight_version=1, ticks=3).episodes
        tickets = []
    episodes.sort(key=lambda episode: episode.ticket.ticket_id)
    assert_same(episodes, run_tickets(make_config(slots=2), make_tickets(5)))
    assert len(caplog.records) == 1


@pytest.mark.parametrize("method", ["collect", "carry"])
def test_tickets_outlive_slots_that_could_not_be_laid_out(method: str, caplog: pytest.LogCaptureFixture) -> None:
    collector = Collector(backbone=FullBackbone(), scoring=ToyScoring(), config=make_config(slots=4))
    options = {"ticks": 100} if method == "carry" else {}
    collected = getattr(collector, method)(make_tickets(3), hashed_policy, weight_version=1, **options)
    assert_same(collected.episodes, run_tickets(make_config(slots=2), make_tickets(3)))
    assert "going on with 2" in caplog.text


@pytest.mark.parametrize("method", ["collect", "carry"])
@pytest.mark.parametrize(
    ("slots", "left", "fewer"), [(4, 2, "fewer slots, "), (1, 1, "")], ids=["after halving", "one slot"]
)
def test_memory_for_not_even_half_the_slots_is_one_sentence(method: str, slots: int, left: int, fewer: str) -> None:
    collector = small(1, slots=slots)
    options = {"ticks": 3} if method == "carry" else {}
    sentence = (
        rf"Out of memory even with rollout\.slots={left} \(too many rows\): choose {fewer}backbone\.dtype=bfloat16 "
        r"or a smaller backbone\.image_size\."
    )
    with pytest.raises(RolloutError, match=sentence):
        getattr(collector, method)(make_tickets(1), hashed_policy, weight_version=1, **options)


def test_an_empty_prompt_fails_its_ticket() -> None:
    tickets = make_tickets(3)
    tickets[1] = replace(tickets[1], prompt=make_prompt(5, "  "))
    collected = make_collector(make_config()).collect(tickets, hashed_policy, weight_version=1)
    assert [failed.reason for failed in collected.failed] == ["The prompt of ticket 1 is empty: give it words."]
    assert [episode.ticket.ticket_id for episode in collected.episodes] == [0, 2]


def test_a_ticket_without_its_reference_fails_alone() -> None:
    config = make_config(preset="paired")
    reference = Reference(scores=np.zeros(3, np.float32), dino_embedding=np.zeros(6, np.float32))
    tickets = [replace(ticket, reference=reference) for ticket in make_tickets(3)]
    tickets[1] = replace(tickets[1], reference=None)
    collected = make_collector(config).collect(tickets, hashed_policy, weight_version=1)
    assert [failed.ticket.ticket_id for failed in collected.failed] == [1]
    assert "Ticket 1 has no reference" in collected.failed[0].reason
    assert [episode.ticket.ticket_id for episode in collected.episodes] == [0, 2]


@pytest.mark.parametrize("word", [UNSCORABLE, DIVERGENT])
@pytest.mark.parametrize("forced", [None, Action.CONTINUE])
def test_a_failing_image_fails_its_ticket_and_leaves_the_others_as_they_were(word: str, forced: Action | None) -> None:
    tickets = make_tickets(7, forced=forced)
    expected = [episode for episode in run_tickets(make_config(), tickets) if episode.ticket.ticket_id not in {1, 4}]
    for index in (1, 4):
        tickets[index] = replace(tickets[index], prompt=make_prompt(9, f"a {word} scene"))
    collected = make_collector(make_config()).collect(tickets, hashed_policy, weight_version=1)
    assert [failed.ticket for failed in collected.failed] == [tickets[1], tickets[4]]
    assert all(failed.reason.endswith(".") for failed in collected.failed)
    assert_same(collected.episodes, expected)


def test_a_policy_that_returns_nan_fails_only_the_slots_concerned() -> None:
    def act(phi: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = hashed_policy(phi)
        logits[-1] = np.nan
        return logits

    collected = make_collector(make_config(slots=2)).collect(make_tickets(4), act, weight_version=1)
    assert collected.episodes
    assert collected.failed
    assert len(collected.episodes) + len(collected.failed) == 4
    assert all("no distribution over actions" in failed.reason for failed in collected.failed)


def test_no_tickets_is_no_work() -> None:
    collected = make_collector(make_config()).collect([], refuse_to_act, weight_version=1)
    assert (collected.episodes, collected.failed) == ((), ())


def test_a_ticket_handed_out_twice_is_refused() -> None:
    with pytest.raises(ContractError, match=r"Tickets \[1\] were handed out twice"):
        make_collector(make_config()).collect([*make_tickets(2), make_tickets(2)[1]], hashed_policy, weight_version=1)


def test_logits_of_another_shape_are_refused() -> None:
    with pytest.raises(ContractError, match=r"\(3, 3\), not \(3, 2\)"):
        make_collector(make_config()).collect(make_tickets(1), lambda phi: phi[:, :2], weight_version=1)
