from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from addiffusion.actions import Action
from addiffusion.config import SamplerSection
from addiffusion.errors import ConfigError, ContractError, DeviceLostError, RolloutError, ScorerError
from addiffusion.policy import PolicyNetwork
from addiffusion.records import Episode, ScoreReply, ScoreRequest, Ticket
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


def test_a_schedule_the_model_does_not_know_is_refused_by_the_key_that_asks_for_it() -> None:
    worker = make_worker(make_config())
    worker.lay_out(SamplerSection(num_steps=5))
    for key in ("sampler.num_steps", "evaluation.static_steps"):
        with pytest.raises(ConfigError, match=rf"^{key} is 5000, but the model's scheduler knows only 1000 timesteps"):
            worker.lay_out(SamplerSection(num_steps=5000), key=key)


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


def finish(worker: Worker, tickets: Sequence[Ticket], **stretch: Any) -> list[Episode]:
    episodes = [*worker.work(tickets, **stretch).episodes]
    while len(episodes) < len(tickets):
        episodes += worker.work([], **stretch).episodes
    return sorted(episodes, key=lambda episode: episode.ticket.ticket_id)


@pytest.mark.parametrize("more", [True, False])
@pytest.mark.parametrize("sampler", [None, SamplerSection(num_steps=5, warmup_steps=1, finish_steps=0)])
def test_stretches_of_work_give_the_episodes_of_one_call(sampler: SamplerSection | None, more: bool) -> None:
    config = make_config(rollout={"slots": 4, "carry_ticks": 3})
    one, other = make_worker(config), make_worker(config)
    for worker in (one, other):
        worker.set_weights(weights_of(1), 0)
    whole = one.collect(make_tickets(11), sampler=sampler).episodes
    for ours, theirs in zip(finish(other, make_tickets(11), sampler=sampler, more=more), whole, strict=True):
        for name in ("phi", "actions", "log_prob", "logits", "terms", "scores", "image"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        assert (ours.nfe, ours.network_evals) == (theirs.nfe, theirs.network_evals)


def test_a_stretch_ends_early_where_slots_idle_and_tickets_are_on_their_way() -> None:
    config = make_config(rollout={"slots": 4, "rows": 8, "carry_ticks": 100})
    worker, tickets = make_worker(config), make_tickets(7, forced=Action.CONTINUE)
    first = worker.work(tickets[:6], more=True)
    assert 0 < len(first.episodes) < 6, "two slots ran dry while the last two images were under way"
    rest = worker.work(tickets[6:], more=False)
    assert len(first.episodes) + len(rest.episodes) == 7


def test_another_session_forgets_what_was_under_way_in_any_sampler() -> None:
    config = make_config(rollout={"slots": 4, "carry_ticks": 2})
    worker, tickets = make_worker(config), make_tickets(4, forced=Action.CONTINUE)
    short = SamplerSection(num_steps=5, warmup_steps=1, finish_steps=0)
    assert worker.work(tickets, session=1).episodes == ()
    assert len(finish(worker, tickets, session=2, sampler=short)) == 4
    assert worker.work([], session=2).episodes == worker.work([], session=3).episodes == ()
    assert len(finish(worker, tickets, session=3)) == 4


def test_an_image_travels_where_the_ticket_asks_for_it() -> None:
    worker = make_worker(make_config())
    with_image, without = (
        worker.collect(make_tickets(1, forced=Action.CONTINUE, keep_image=wanted)).episodes[0]
        for wanted in (True, False)
    )
    assert with_image.image.shape == (16, 16, 3)
    assert without.image.shape == (0, 0, 3)
    np.testing.assert_array_equal(with_image.scores, without.scores)


class BrokenBackbone(ToyBackbone):
    """A model whose device asserts."""

    def denoise(self, *args: Any) -> Tensor:
        raise RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be ...")


class BrokenScoring(ToyScoring):
    """Scorers of this process, whose device is lost."""

    def score(self, request: ScoreRequest) -> ScoreReply:
        raise ScorerError("Scorer `clip` failed.") from RuntimeError("CUDA error: unknown error")


@pytest.mark.parametrize("method", ["collect", "work"])
@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"backbone": BrokenBackbone, "scoring": ToyScoring}, "CUDA error: device-side assert triggered"),
        ({"backbone": ToyBackbone, "scoring": BrokenScoring}, "CUDA error: unknown error"),
    ],
)
def test_a_lost_device_is_no_failure_of_tickets(method: str, parts: dict[str, Any], reason: str) -> None:
    config = make_config()
    worker = Worker(config, policy=PolicyNetwork(phi_width(config), config.policy.hidden), **parts)
    worker.set_weights(weights_of(0), 0)
    with pytest.raises(DeviceLostError) as caught:
        getattr(worker, method)(make_tickets(3))
    assert caught.value.facts["reason"] == reason
