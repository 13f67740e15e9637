from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.actor import ActorHandle

from addiffusion.baseline import Baseline
from addiffusion.config import Config
from addiffusion.errors import ContractError, RolloutError
from addiffusion.rollouts import Collected
from learner.rollouts import RayRollouts
from tests.learner.toy import ToyRollouts, toy_config, toy_ticket, toy_weights
from tests.learner.toy_actor import Fault, ToyActor, ToyBaseline

CONFIG = toy_config()
TICKETS = [toy_ticket(ticket_id, ticket_id % 4) for ticket_id in range(11)]
DEADLINE_S = 60.0


class Crew:
    """Two remote workers for all tests of this module: starting one takes seconds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.handles = {number: self.start(number) for number in (1, 2)}

    def start(self, number: int, *, max_restarts: int = 20) -> ActorHandle:
        actor = ray.remote(num_cpus=0.1, max_restarts=max_restarts)(ToyActor)
        return actor.remote(CONFIG, self._folder / str(number))

    def order(self, number: int, fault: Fault) -> None:
        """Have a worker show ``fault`` in its next call."""
        (self._folder / str(number)).write_text(fault)

    def rollouts(self, *numbers: int, **rollout: Any) -> RayRollouts:
        """Rollouts over the workers ``numbers``, all of which are up."""
        actors = {number: self.handles[number] for number in numbers}
        return make_rollouts(actors, CONFIG.model_copy(update={"rollout": CONFIG.rollout.model_copy(update=rollout)}))


def make_rollouts(actors: dict[int, ActorHandle], config: Config) -> RayRollouts:
    for handle in actors.values():
        await_answer(handle)
    rollouts = RayRollouts(actors, config)
    rollouts.set_weights(toy_weights(config), 0)
    return rollouts


def await_answer(handle: ActorHandle) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            ray.get(handle.ping.remote(), timeout=DEADLINE_S)
        except ray.exceptions.ActorUnavailableError:
            assert time.monotonic() < deadline, "the worker did not come back"
            time.sleep(0.1)
        else:
            return


@pytest.fixture(scope="module")
def crew(ray_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    crew = Crew(tmp_path_factory.mktemp("orders"))
    yield crew
    for handle in crew.handles.values():
        ray.kill(handle)


def assert_complete(collected: Collected) -> None:
    """The same episodes, in the same order, as one process gives."""
    alone = ToyRollouts(CONFIG)
    alone.set_weights(toy_weights(CONFIG), 0)
    expected = sorted(alone.collect(TICKETS).episodes, key=lambda episode: episode.ticket.ticket_id)
    assert [episode.ticket for episode in collected.episodes] == [episode.ticket for episode in expected] == TICKETS
    for ours, theirs in zip(collected.episodes, expected, strict=True):
        assert ours.actions.tolist() == theirs.actions.tolist()
        assert ours.logits.tobytes() == theirs.logits.tobytes()


def test_splits_the_tickets_and_fetches_weights_once_per_version(crew: Crew) -> None:
    rollouts = crew.rollouts(1, 2)
    for _ in range(2):
        collected = rollouts.collect(TICKETS)
        assert_complete(collected)
        assert collected.stage_s == {"network": 2.0}
    assert ray.get([handle.fetches.remote() for handle in crew.handles.values()]) == [1, 1]
    assert [episode.ticket.ticket_id for episode in rollouts.collect(TICKETS[:1]).episodes] == [0]


def test_tickets_of_a_dead_worker_go_to_the_others_and_it_comes_back(crew: Crew) -> None:
    rollouts = crew.rollouts(1, 2)
    crew.order(1, "dies")
    assert_complete(rollouts.collect(TICKETS))
    assert (rollouts.pool.lost_count, rollouts.reissued_count) == (1, 6)
    deadline = time.monotonic() + DEADLINE_S
    while rollouts.pool.up != [1, 2] and time.monotonic() < deadline:
        rollouts.pool.revive()
        time.sleep(0.1)
    assert_complete(rollouts.collect(TICKETS))
    assert ray.get(crew.handles[1].fetches.remote()) == 1


def test_a_baseline_is_drawn_by_the_same_workers_in_small_calls(crew: Crew) -> None:
    rollouts = crew.rollouts(1, 2)
    hosted = rollouts.hosting(Baseline(name="toys", make=ToyBaseline))
    assert_complete(collected := hosted.collect(TICKETS))
    assert collected.stage_s == {"network": 4.0}  # a worker's six and five tickets are two calls each
    crew.order(1, "dies")
    assert_complete(hosted.collect(TICKETS))
    assert (rollouts.pool.lost_count, rollouts.reissued_count) == (1, 6)


@pytest.mark.slow  # starts a pool of its own
def test_the_only_worker_may_die_too(crew: Crew) -> None:
    crew.order(1, "dies")
    assert_complete(crew.rollouts(1).collect(TICKETS))


def test_a_hanging_worker_is_restarted_and_its_tickets_go_to_the_others(crew: Crew) -> None:
    rollouts = crew.rollouts(1, 2, timeout_s=3.0)
    crew.order(2, "hangs")
    assert_complete(rollouts.collect(TICKETS))
    assert rollouts.reissued_count == 5


def test_a_slow_worker_is_waited_for(crew: Crew) -> None:
    rollouts = crew.rollouts(1, 2)
    crew.order(1, "dawdles")
    assert_complete(rollouts.collect(TICKETS))
    assert (rollouts.pool.lost_count, rollouts.reissued_count) == (0, 0)


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [("is wrong", ContractError, "This is a defect"), ("raises", RolloutError, r"worker 1 .*ZeroDivisionError")],
)
def test_what_a_worker_raises_is_raised_here(crew: Crew, fault: Fault, kind: type[Exception], message: str) -> None:
    rollouts = crew.rollouts(1)
    crew.order(1, fault)
    with pytest.raises(kind, match=message):
        rollouts.collect(TICKETS)


def test_a_ticket_that_was_alone_on_a_lost_worker_is_refused_in_the_end(crew: Crew) -> None:
    rollouts = crew.rollouts(1, max_reissues=0)
    crew.order(1, "dies")
    (failure,) = rollouts.collect(TICKETS[:1]).failed
    assert failure.final
    assert "alone on its worker 1 times" in failure.reason


def test_a_worker_that_has_lost_its_device_is_lost_and_says_why(crew: Crew, caplog: pytest.LogCaptureFixture) -> None:
    rollouts = crew.rollouts(1, 2)
    crew.order(1, "loses its device")
    assert_complete(rollouts.collect(TICKETS))
    assert rollouts.pool.lost_count == 1
    assert "Rollout worker 1 is lost (CUDA error: unknown error, " in caplog.text
    assert "s into a call with 6 tickets; " in caplog.text


@pytest.mark.slow  # starts a pool of its own
def test_the_last_worker_that_is_gone_for_good_ends_the_run(crew: Crew) -> None:
    rollouts = make_rollouts({3: crew.start(3, max_restarts=0)}, CONFIG)
    crew.order(3, "dies")
    with pytest.raises(RolloutError, match="No rollout worker is left"):
        rollouts.collect(TICKETS)
