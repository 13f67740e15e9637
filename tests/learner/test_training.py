from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from addiffusion.checkpoint_files import latest_checkpoint, list_checkpoints
from addiffusion.config import Config
from addiffusion.errors import CheckpointError, RolloutError, StaleWeightsError
from learner.checkpoint import load_checkpoint
from learner.iteration import IterationReport
from learner.state import Learner
from learner.training import Training, build_ledger
from tests.learner.toy import ToyRollouts, distance_from_best, toy_config, toy_pool
from tests.learner.toy_learner import toy_learner


def start(
    config: Config, *, failures: dict[int, int] | None = None, learner: Learner | None = None
) -> tuple[Training, ToyRollouts]:
    rollouts = ToyRollouts(config, failures)
    ledger = build_ledger(config, toy_pool())
    return Training(config, ledger=ledger, rollouts=rollouts, learner=learner or toy_learner(config)), rollouts


def weights_of(training: Training) -> dict[str, np.ndarray]:
    state = training.checkpoint().learner
    return {name: tensor.numpy() for part in (state.policy, state.value) for name, tensor in part.items()}


def same_weights(left: Training, right: Training) -> bool:
    ours, theirs = weights_of(left), weights_of(right)
    return all(np.array_equal(ours[name], theirs[name]) for name in ours)


def mean_distance(report: IterationReport) -> float:
    stops = [(episode.ticket.prompt.prompt_id, len(episode.actions) - 1) for episode in report.episodes]
    return float(np.mean([distance_from_best(prompt_id, step) for prompt_id, step in stops]))


def test_the_policy_learns_when_to_stop() -> None:
    training, _ = start(toy_config(batch_size=32, minibatch_size=64, iterations=30, entropy_start=0.02))
    distances = [mean_distance(training.step()) for _ in range(30)]
    assert np.mean(distances[:3]) > 2.0
    assert np.mean(distances[-3:]) < 1.0
    assert training.finished


def test_a_report_holds_the_iterations_episodes_in_order() -> None:
    training, _ = start(toy_config())
    training.step()
    report = training.step()
    assert report.iteration == 1
    assert [episode.ticket.ticket_id for episode in report.episodes] == list(range(16, 32))
    assert {episode.weight_version for episode in report.episodes} == {1}
    assert report.rollout["return"] == pytest.approx(np.mean([e.rewards.sum() for e in report.episodes]), rel=1e-5)
    fractions = [report.rollout[f"{name}_frac"] for name in ("continue", "stop", "refine")]
    assert sum(fractions) == pytest.approx(1)
    assert report.stage_s == {"network": 1.0}


def test_failed_tickets_are_reissued_and_change_nothing() -> None:
    smooth, _ = start(toy_config())
    rough, rollouts = start(toy_config(), failures={0: 1, 5: 2, 15: 1})
    assert smooth.step().reissued_count == 0
    assert rough.step().reissued_count == 4
    assert rollouts.batches == [tuple(range(16)), (0, 5, 15), (5,)]
    assert same_weights(smooth, rough)


def test_a_ticket_that_always_fails_ends_the_run() -> None:
    training, _ = start(toy_config(), failures={3: 99})
    with pytest.raises(RolloutError, match="Ticket 3"):
        training.step()


def test_episodes_of_old_weights_are_refused() -> None:
    training, rollouts = start(toy_config())
    rollouts.version = 7
    with pytest.raises(StaleWeightsError, match=r"versions \[7\]"):
        training.step()


def test_resuming_equals_never_having_stopped(tmp_path: Path) -> None:
    config = toy_config(iterations=4)
    straight, _ = start(config)
    for _ in range(2):
        straight.step()
    straight.save(tmp_path)
    resumed, rollouts = start(config, learner=toy_learner(config))
    resumed.restore(load_checkpoint(latest_checkpoint(tmp_path)))
    assert resumed.iteration == rollouts.version == 2
    for training in (straight, resumed):
        training.step()
        training.step()
    assert same_weights(straight, resumed)
    assert straight.checkpoint().ledger == resumed.checkpoint().ledger


def test_checkpoints_are_due_at_intervals_and_at_the_end_and_old_ones_go(tmp_path: Path) -> None:
    config = toy_config(iterations=7)
    config = config.model_copy(update={"checkpoint": config.checkpoint.model_copy(update={"every": 2, "keep": 1})})
    training, _ = start(config)
    saved: list[int] = []
    while not training.finished:
        training.step()
        if training.due():
            training.save(tmp_path)
            saved.append(training.iteration)
    assert saved == [2, 4, 6, 7]
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["iteration-000006", "iteration-000007"]


def test_a_checkpoint_of_another_configuration_is_refused() -> None:
    training, _ = start(toy_config())
    with pytest.raises(CheckpointError, match="another configuration"):
        training.restore(replace(training.checkpoint(), config_digest="something else"))
