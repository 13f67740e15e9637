"""Collection without a drain: nothing lost or doubled, no length favoured, lag bounded; serial equals Ray."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from addiffusion.config import Config
from addiffusion.errors import ContractError, StaleWeightsError
from addiffusion.records import Episode, Ticket
from addiffusion.rollouts import Collected, Rollouts, WorkerStatus
from learner.batch import BatchBuilder
from learner.carry_over import CarryOver
from learner.rollouts import RayRollouts
from learner.tickets import PoolEntry, TicketLedger
from learner.training import Training, build_ledger
from rollout_workers.worker import Worker
from tests.fakes import ToyBackbone, ToyScoring, make_prompt
from tests.learner.toy import ToyRollouts, toy_config, toy_episode, toy_pool, toy_ticket
from tests.rollout_workers.toy_run import make_config, make_worker, phi_width

POOL = [PoolEntry(prompt=make_prompt(i), seed=i) for i in range(20)]
ITERATIONS = 4


def carry_config(*, lr: float = 1e-3, max_lag: int = 1, **rollout: object) -> Config:
    return make_config(
        ppo={
            "batch_size": 10, "minibatch_size": 64, "iterations": ITERATIONS, "epochs": 1, "lr": lr,
            "collection": "carry_over", "max_lag": max_lag,
        },
        rollout={"slots": 4, "workers": 1, "carry_ticks": 3, "max_reissues": 2, "timeout_s": 60, **rollout},
        sampler={"num_steps": 20, "warmup_steps": 2, "finish_steps": 2},
    )  # fmt: skip


def synchronous(config: Config) -> Config:
    return config.model_copy(update={"ppo": config.ppo.model_copy(update={"collection": "synchronous"})})


def start(config: Config, rollouts: Rollouts | None = None) -> Training:
    from learner.algorithm_config import build_ppo_config  # noqa: PLC0415 - the toy actor's processes need no RLlib
    from learner.update import PolicyLearner  # noqa: PLC0415

    learner = PolicyLearner(build_ppo_config(config, observation_width=phi_width(config)).build_learner())
    return Training(
        config, ledger=build_ledger(config, POOL), rollouts=rollouts or make_worker(config), learner=learner
    )


def train(training: Training) -> list[tuple[Episode, ...]]:
    batches: list[tuple[Episode, ...]] = []
    while not training.finished:
        report = training.step()
        assert report.facts["episodes_dropped"] == report.facts["audit_length_gap"] == 0
        batches.append(report.episodes)
    return batches


@pytest.fixture(scope="module")
def serial() -> list[tuple[Episode, ...]]:
    """What a run in one process trains."""
    return train(start(carry_config()))


def ids(batches: Sequence[tuple[Episode, ...]]) -> list[int]:
    return [episode.ticket.ticket_id for episodes in batches for episode in episodes]


def test_every_ticket_is_trained_once_in_its_iteration_and_lag_is_bounded() -> None:
    config = carry_config(max_lag=2)
    batches = train(start(config))
    assert ids(batches) == list(range(10 * ITERATIONS))
    lags = [n - episode.weight_versions for n, episodes in enumerate(batches) for episode in episodes]
    assert {0, 1} <= set(np.concatenate(lags).tolist()) <= {0, 1, 2}
    carried = [episode for episodes in batches for episode in episodes if episode.carried_versions is not None]
    assert carried, "some episodes have seen an update"
    for episode in carried:
        assert (np.diff(episode.weight_versions) >= 0).all()
        assert episode.weight_version == episode.weight_versions[-1]


def test_behaviour_probabilities_are_those_of_the_weights_that_acted(serial: list[tuple[Episode, ...]]) -> None:
    for episodes in serial:
        for episode in episodes:
            probabilities = np.exp(episode.logits.astype(np.float64))
            probabilities /= probabilities.sum(axis=1, keepdims=True)
            taken = probabilities[np.arange(len(episode.actions)), episode.actions]
            np.testing.assert_allclose(np.exp(episode.log_prob), taken, rtol=1e-5)


def test_without_learning_it_trains_the_very_episodes_of_synchronous_collection() -> None:
    """The strictest test of a length bias: short episodes finish first, and yet none is trained before its turn."""
    config = carry_config(lr=1e-30)  # too little to change a float
    ours, theirs = train(start(config)), train(start(synchronous(config)))
    for mine, yours in zip(ours, theirs, strict=True):
        assert [e.ticket.ticket_id for e in mine] == [e.ticket.ticket_id for e in yours]
        for one, other in zip(mine, yours, strict=True):
            assert one.actions.tolist() == other.actions.tolist()
            assert one.phi.tobytes() == other.phi.tobytes()
            assert one.terms.tobytes() == other.terms.tobytes()


def test_a_serial_run_is_a_function_of_its_seed(serial: list[tuple[Episode, ...]]) -> None:
    again = train(start(carry_config()))
    assert [e.actions.tolist() for b in serial for e in b] == [e.actions.tolist() for b in again for e in b]


def test_a_resumed_run_begins_unfinished_tickets_again_and_trains_each_once() -> None:
    straight = start(carry_config())
    batches = [straight.step().episodes, straight.step().episodes]
    resumed = start(carry_config())
    resumed.restore(straight.checkpoint())
    assert ids([*batches, *train(resumed)]) == list(range(10 * ITERATIONS))


class Flaky(Worker):
    """Loses what it is told to."""

    def __init__(self, *args: object, **parts: object) -> None:
        super().__init__(*args, **parts)  # pyright: ignore[reportArgumentType]
        self.strange: list[Episode] = []

    def advance(self, tickets: Sequence[Ticket]) -> Collected:
        collected = super().advance(tickets)
        return Collected(episodes=(*collected.episodes, *self.strange), failed=collected.failed)


def test_an_episode_nobody_asked_for_is_a_defect() -> None:
    from addiffusion.policy import PolicyNetwork  # noqa: PLC0415

    config = carry_config()
    policy = PolicyNetwork(phi_width(config), config.policy.hidden)
    worker = Flaky(config, policy=policy, backbone=ToyBackbone, scoring=ToyScoring)
    training = start(config, worker)
    worker.strange = [toy_episode(toy_ticket(999), phi=np.zeros((1, 3), np.float32), actions=[1], rewards=[0.0])]
    with pytest.raises(ContractError, match="999 came back, but it is not under way"):
        training.step()


def test_failing_tickets_are_handed_out_again() -> None:
    config = toy_config(collection="carry_over", iterations=3, batch_size=6)
    rollouts = ToyRollouts(config, {0: 1, 3: 2, 9: 1})
    ledger = build_ledger(config, toy_pool())
    carry = CarryOver(config, ledger=ledger, rollouts=rollouts)
    rollouts.version = 0
    batch = carry.collect(0)
    assert [episode.ticket.ticket_id for episode in batch.episodes] == list(range(6))
    ledger.close(0)
    assert ledger.state.failed_count == ledger.state.reissued_count == 4


class ComingAndGoing(ToyRollouts):
    """Rollouts by as many workers as ``ups`` says, call by call; one ticket ends in each call."""

    def __init__(self, config: Config, ups: Sequence[int]) -> None:
        super().__init__(config)
        self.ups, self.held, self.held_counts = ups, list[Ticket](), list[int]()

    def worker_status(self) -> WorkerStatus:
        return WorkerStatus(up_count=self.ups[len(self.held_counts)], absent_count=0, lost_count=0, moved_count=0)

    def advance(self, tickets: Sequence[Ticket]) -> Collected:
        self.held += tickets
        self.held_counts.append(len(self.held))
        done, self.held = self.held[:1], self.held[1:]
        return self.collect(done)


def test_as_many_tickets_are_under_way_as_there_are_workers_for() -> None:
    """Nodes that join are given tickets, and for those that have left none are handed out, whatever was configured."""
    config = toy_config(collection="carry_over", iterations=8, batch_size=32)
    rollouts = ComingAndGoing(config, [1] * 5 + [3] * 5 + [0] * 5 + [2] * 50)
    rollouts.version = 0
    CarryOver(config, ledger=build_ledger(config, toy_pool()), rollouts=rollouts).collect(0)
    assert rollouts.held_counts[:20] == [8] * 5 + [24] * 5 + [23, 22, 21, 20, 19] + [18, 17, 16, 16, 16]


def test_decisions_outside_the_allowed_versions_are_refused() -> None:
    ledger = TicketLedger(toy_pool(), run_seed=0, batch_size=1, prices=(0.0, 0.0), max_reissues=0)
    old = toy_episode(toy_ticket(), phi=np.zeros((1, 3), np.float32), actions=[1], rewards=[0.0], weight_version=2)
    with pytest.raises(StaleWeightsError, match=r"weight versions \[2\], but only 3 to 4"):
        BatchBuilder(4, ledger, oldest=3).build([old])


class RemoteWorker:
    """The real worker around the toy model, as an actor without RLlib, which takes seconds to import."""

    def __init__(self, config: Config, marker: Path | None) -> None:
        from addiffusion.policy import PolicyNetwork  # noqa: PLC0415
        from tests.rollout_workers.toy_run import MortalBackbone  # noqa: PLC0415

        self._worker = Worker(
            config,
            policy=PolicyNetwork(phi_width(config), config.policy.hidden),
            backbone=ToyBackbone if marker is None else lambda: MortalBackbone(marker),
            scoring=ToyScoring,
        )

    def ping(self) -> str:
        return "pong"

    def work(
        self, tickets: Sequence[Ticket], *, weights: list[ray.ObjectRef], weight_version: int, **stretch: Any
    ) -> Collected:
        if weight_version != self._worker.weight_version:
            self._worker.set_weights(ray.get(weights[0], timeout=30), weight_version)
        return self._worker.work(tickets, **stretch)


def remote(config: Config, *markers: Path | None) -> RayRollouts:
    kind = ray.remote(num_cpus=0.1, max_restarts=5)(RemoteWorker)
    actors = {number: kind.remote(config, marker) for number, marker in enumerate(markers)}
    ray.get([actor.ping.remote() for actor in actors.values()], timeout=120)
    return RayRollouts(actors, config)


@pytest.fixture
def started(ray_cluster: str) -> Iterator[list[RayRollouts]]:
    made: list[RayRollouts] = []
    yield made
    for rollouts in made:
        for number in list(rollouts.pool._actors):
            ray.kill(rollouts.pool.actor(number))


def test_one_remote_worker_gives_the_episodes_of_a_serial_run(
    started: list[RayRollouts], serial: list[tuple[Episode, ...]]
) -> None:
    config = carry_config()
    started.append(remote(config, None))
    for mine, yours in zip(train(start(config, started[0])), serial, strict=True):
        for one, other in zip(mine, yours, strict=True):
            assert one.ticket.ticket_id == other.ticket.ticket_id
            assert one.weight_versions.tolist() == other.weight_versions.tolist()
            assert one.logits.tobytes() == other.logits.tobytes()


@pytest.mark.slow  # tests/cluster/test_elastic.py has it with real nodes
def test_a_worker_that_joins_is_given_tickets(started: list[RayRollouts]) -> None:
    config = carry_config()
    joining = dict(remote(config, None).pool._actors)
    started.append(RayRollouts({}, config, lambda: {number: joining.pop(number) for number in list(joining)}))
    assert ids(train(start(config, started[0]))) == list(range(10 * ITERATIONS))
    assert started[0].pool.up == [0]


def test_a_worker_that_is_killed_costs_nothing(started: list[RayRollouts], tmp_path: Path) -> None:
    config = carry_config().model_copy(update={"cluster": Config().cluster})
    marker = tmp_path / "killed"
    started.append(remote(config, marker, marker))
    batches = train(start(config, started[0]))
    assert marker.exists()
    assert ids(batches) == list(range(10 * ITERATIONS))
    assert started[0].pool.lost_count == 1
    assert started[0].reissued_count > 0
    deadline = time.monotonic() + 60
    while len(started[0].pool.up) < 2 and time.monotonic() < deadline:
        started[0].pool.revive()
        time.sleep(0.1)
    assert started[0].pool.up == [0, 1]
