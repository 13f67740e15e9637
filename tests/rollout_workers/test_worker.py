from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from addiffusion.actions import Action
from addiffusion.config import SamplerSection
from addiffusion.errors import ContractError, RolloutError, ScorerError
from addiffusion.policy import PolicyNetwork
from addiffusion.records import ScoreReply, ScoreRequest
from rollout_workers.worker import Worker
from tests.fakes import ToyBackbone, ToyScoring
from tests.rollout_workers.toy_run import make_config, make_tickets, make_worker, phi_width


def weights_of(seed: int) -> dict[str, NDArray[np.float32]]:
    torch.manual_seed(seed)
    network = PolicyNetwork(phi_width(make_config()), make_config().policy.hidden)
    return {name: value.numpy() for name, value in network.state_dict().items()}


def test_acts_with_the_weights_it_was_given() -> None:
    worker = make_worker(make_config())
    worker.set_weights(weights_of(1), 4)
    first, *_ = worker.collect(make_tickets(5)).episodes
    expected = PolicyNetwork(phi_width(make_config()), make_config().policy.hidden)
    expected.load_state_dict({name: torch.from_numpy(value) for name, value in weights_of(1).items()})
    with torch.inference_mode():
        np.testing.assert_allclose(first.logits, expected(torch.from_numpy(first.phi)), rtol=1e-5, atol=1e-6)
    assert first.weight_version == 4


def test_a_sampler_of_its_own_is_used_for_that_call_only() -> None:
    worker = make_worker(make_config())
    tickets = make_tickets(2, forced=Action.CONTINUE)
    short = SamplerSection(num_steps=5, warmup_steps=1, finish_steps=0)
    assert [episode.nfe for episode in worker.collect(tickets, sampler=short).episodes] == [5, 5]
    assert [episode.nfe for episode in worker.collect(tickets).episodes] == [8, 8]


def test_loads_nothing_before_the_first_ticket_and_everything_once() -> None:
    loaded: list[str] = []

    def backbone() -> ToyBackbone:
        loaded.append("backbone")
        return ToyBackbone()

    def scoring() -> ToyScoring:
        loaded.append("scoring")
        return ToyScoring()

    config = make_config()
    policy = PolicyNetwork(phi_width(config), config.policy.hidden)
    worker = Worker(config, policy=policy, backbone=backbone, scoring=scoring)
    assert loaded == []
    for _ in range(2):
        worker.collect(make_tickets(1, forced=Action.CONTINUE))
        worker.collect(make_tickets(1, forced=Action.CONTINUE), sampler=SamplerSection(num_steps=4, warmup_steps=1))
    assert loaded == ["backbone", "scoring"]


def test_decisions_need_weights_but_forced_tickets_do_not() -> None:
    worker = make_worker(make_config())
    with pytest.raises(ContractError, match="before it was given policy weights"):
        worker.collect(make_tickets(1))
    assert len(worker.collect(make_tickets(1, forced=Action.CONTINUE)).episodes) == 1


def test_restores_the_callers_thread_count() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        make_worker(make_config()).collect(make_tickets(1, forced=Action.CONTINUE))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


class DeadScoring(ToyScoring):
    """A service nobody answers for."""

    def score(self, request: ScoreRequest) -> ScoreReply:
        raise ScorerError("Nobody answers.")

    def embed_text(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        raise ScorerError("Nobody answers.")


def test_silent_scorers_fail_every_ticket_by_name() -> None:
    config = make_config()
    policy = PolicyNetwork(phi_width(config), config.policy.hidden)
    worker = Worker(config, policy=policy, backbone=ToyBackbone, scoring=DeadScoring)
    worker.set_weights(weights_of(0), 0)
    collected = worker.collect(list(reversed(make_tickets(3))))
    assert collected.episodes == ()
    assert [(failure.ticket.ticket_id, failure.reason) for failure in collected.failed] == [
        (i, "Nobody answers.") for i in range(3)
    ]


def test_silent_scorers_end_the_run_where_they_are_told_to() -> None:
    config = make_config(scorers={"on_score_error": "stop"})
    policy = PolicyNetwork(phi_width(config), config.policy.hidden)
    worker = Worker(config, policy=policy, backbone=ToyBackbone, scoring=DeadScoring)
    worker.set_weights(weights_of(0), 0)
    with pytest.raises(RolloutError, match=r"Nobody answers.*on_score_error=stop"):
        worker.collect(make_tickets(3))
