from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from queue import Queue
from typing import Any

import numpy as np
import pytest
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO
from torch import Tensor

from addiffusion.actions import Action
from addiffusion.baseline import Baseline
from addiffusion.errors import DeviceLostError
from addiffusion.metrics import Metric
from addiffusion.rollouts import Rollouts
from addiffusion.scorers.base import Scoring
from learner.algorithm_config import build_ppo_config
from learner.update import PolicyLearner
from rollout_workers import metrics
from rollout_workers.metrics import STAGES
from rollout_workers.runner import DiffusionRunner
from tests.fakes import ToyBackbone, ToyScoring
from tests.rollout_workers.toy_run import make_config, make_tickets, make_worker, phi_width


def make_runner(*, backbone: Any = ToyBackbone, worker_index: int = 1, **parts: Any) -> DiffusionRunner:
    config = make_config()
    built = build_ppo_config(
        config, observation_width=phi_width(config), runner_class=DiffusionRunner, scoring=ToyScoring, backbone=backbone
    )
    built.environment(env_config={**built.env_config, **parts})
    return DiffusionRunner(config=built, worker_index=worker_index)


def make_learner() -> PolicyLearner:
    config = make_config()
    return PolicyLearner(build_ppo_config(config, observation_width=phi_width(config)).build_learner())


def test_equals_the_worker_without_rllib_bitwise() -> None:
    weights = make_learner().weights()
    runner, worker = make_runner(), make_worker(make_config())
    for rollouts in (runner.worker, worker):
        rollouts.set_weights(weights, 3)
    ours, theirs = runner.sample(tickets=make_tickets(6)).episodes, worker.collect(make_tickets(6)).episodes
    for left, right in zip(ours, theirs, strict=True):
        for name in ("phi", "actions", "log_prob", "logits", "terms", "scores", "image"):
            np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
        assert left.weight_version == right.weight_version == 3


def test_a_baseline_draws_in_place_of_the_engine_and_is_made_once() -> None:
    made: list[Scoring] = []

    def make(scoring: Scoring) -> Rollouts:
        made.append(scoring)
        return make_worker(make_config())

    runner, baseline = make_runner(backbone=None), Baseline(name="other", make=make)
    tickets = [replace(ticket, forced=Action.CONTINUE) for ticket in make_tickets(3)]
    first, again = (runner.collect(tickets, baseline=baseline) for _ in range(2))
    assert [type(scoring) for scoring in made] == [ToyScoring]
    alone = make_worker(make_config()).collect(tickets)
    for ours, more, theirs in zip(first.episodes, again.episodes, alone.episodes, strict=True):
        np.testing.assert_array_equal(ours.image, theirs.image)
        np.testing.assert_array_equal(more.image, theirs.image)


class BrokenBackbone(ToyBackbone):
    """A model whose device asserts."""

    def denoise(self, *args: Any) -> Tensor:
        raise RuntimeError("CUDA error: device-side assert triggered")


def test_a_process_that_has_lost_its_device_says_so_and_ends_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that were queued behind fail likewise, and it no longer says that it can be given tickets."""
    ended = Queue[str]()
    monkeypatch.setattr("rollout_workers.runner.end_process", ended.put)
    monkeypatch.setattr("rollout_workers.runner.LAST_WORDS_S", 0.2)
    runner = make_runner(backbone=BrokenBackbone)
    assert runner.ping() == "pong"
    tickets = make_tickets(2, forced=Action.CONTINUE)
    with pytest.raises(DeviceLostError) as first:
        runner.work(tickets, session=1)
    for call in (lambda: runner.work([], session=1), lambda: runner.collect(tickets), runner.ping):
        with pytest.raises(DeviceLostError) as again:
            call()
        assert again.value is first.value
    assert "device-side assert triggered" in ended.get(timeout=20)
    time.sleep(0.4)
    assert ended.empty(), "once"


class Ledger:
    """Adds up what is reported."""

    def __init__(self) -> None:
        self.values: Counter[tuple[str, str]] = Counter()

    def record(self, metric: Metric, value: float, **tags: str) -> None:
        self.values[metric.name, tags.get("stage", "")] += value


def test_counts_and_the_time_of_every_stage_are_exported() -> None:
    ledger = Ledger()
    runner = make_runner(meters=lambda _: ledger)
    runner.worker.set_weights(make_learner().weights(), 3)
    parts = [runner.collect(make_tickets(count)) for count in (3, 4)]
    episodes = [episode for part in parts for episode in part.episodes]
    assert ledger.values[metrics.EPISODES.name, ""] == len(episodes) == 7
    assert ledger.values[metrics.NFE.name, ""] == sum(episode.nfe for episode in episodes)
    for stage in STAGES:
        spent = ledger.values[metrics.STAGE_TIME.name, stage]
        assert spent == pytest.approx(sum(part.stage_s[stage] for part in parts))
        assert spent > 0


def explode() -> ToyBackbone:
    raise AssertionError("the driver's own runner must not load a model")


def test_the_drivers_own_runner_loads_nothing_and_still_serves_rllib() -> None:
    runner = make_runner(backbone=explode, worker_index=0)
    runner.assert_healthy()
    observations, actions = runner.get_spaces()[DEFAULT_MODULE_ID]
    assert observations.shape == (phi_width(make_config()),)
    assert actions.n == 3
    assert runner.get_metrics() == {}
    runner.stop()


@pytest.mark.parametrize("nested", [True, False])
def test_state_in_rllibs_form_makes_the_round_trip(nested: bool) -> None:
    one, other = make_runner(), make_runner()
    one.worker.set_weights({name: value + 1 for name, value in make_learner().weights().items()}, 8)
    state = one.get_state()
    if not nested:
        state = {**state, COMPONENT_RL_MODULE: state[COMPONENT_RL_MODULE][DEFAULT_MODULE_ID]}
    other.set_state(state)
    assert other.worker.weight_version == state[WEIGHTS_SEQ_NO] == 8
    ours, theirs = (
        runner.get_state(COMPONENT_RL_MODULE)[COMPONENT_RL_MODULE][DEFAULT_MODULE_ID] for runner in (one, other)
    )
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert not any(name.startswith("value") for name in ours)
