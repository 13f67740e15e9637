from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from addiffusion.actions import Action
from addiffusion.checkpoint_files import latest_checkpoint
from learner.algorithm_config import build_ppo_config
from learner.checkpoint import load_checkpoint
from learner.ppo import AdaptivePPO
from learner.tickets import PoolEntry
from learner.training import Training, build_ledger
from learner.update import PolicyLearner
from rollout_workers.runner import DiffusionRunner
from tests.fakes import make_prompt
from tests.rollout_workers.toy_run import (
    MortalBackbone,
    NanOnceScoring,
    make_config,
    make_tickets,
    make_worker,
    phi_width,
)

CONFIG = make_config()
POOL = [PoolEntry(prompt=make_prompt(i), seed=i) for i in range(20)]


@pytest.fixture
def algorithm(ray_cluster: str, tmp_path: Path) -> Iterator[AdaptivePPO]:
    """Two remote workers: one will be killed in the middle of an iteration, one image will have a score that is NaN."""
    built = build_ppo_config(
        CONFIG,
        observation_width=phi_width(CONFIG),
        runner_class=DiffusionRunner,
        scoring=partial(NanOnceScoring, tmp_path / "nan"),
        backbone=partial(MortalBackbone, tmp_path / "killed"),
        algorithm_class=AdaptivePPO,
    )
    algorithm = built.build_algo()
    yield algorithm
    algorithm.stop()


def serial_training() -> Training:
    learner = PolicyLearner(build_ppo_config(CONFIG, observation_width=phi_width(CONFIG)).build_learner())
    return Training(CONFIG, ledger=build_ledger(CONFIG, POOL), rollouts=make_worker(CONFIG), learner=learner)


def test_no_killed_worker_no_nan_and_no_resume_changes_a_weight(algorithm: AdaptivePPO, tmp_path: Path) -> None:
    (tmp_path / "nan").touch()  # the NaN is for the training
    forced = algorithm.rollouts.collect(make_tickets(1, forced=Action.CONTINUE))
    assert [episode.nfe for episode in forced.episodes] == [8]
    (tmp_path / "nan").unlink()

    ledger = build_ledger(CONFIG, POOL)
    training = Training(CONFIG, ledger=ledger, rollouts=algorithm.rollouts, learner=algorithm.policy_learner)
    report = training.step()
    assert (tmp_path / "killed").exists()
    assert (tmp_path / "nan").exists()
    assert training.checkpoint().ledger.failed_count == 1
    assert report.facts["episodes_dropped"] == report.facts["audit_length_gap"] == 0
    assert algorithm.rollouts.pool.lost_count == 1
    assert [episode.ticket.ticket_id for episode in report.episodes] == list(range(64))
    report = training.step()
    assert training.iteration == 2

    serial = serial_training()
    serial.step()
    twin = serial.step()
    for ours, theirs in zip(report.episodes, twin.episodes, strict=True):
        assert ours.logits.tobytes() == theirs.logits.tobytes()
    assert_same_state(training, serial)

    training.save(tmp_path)
    training.step()
    training.restore(load_checkpoint(latest_checkpoint(tmp_path)))
    assert_same_state(training, serial)
    training.step()  # the update after a resume is that of the run that went on
    serial.step()
    assert_same_state(training, serial)


def assert_same_state(left: Training, right: Training) -> None:
    ours, theirs = left.checkpoint(), right.checkpoint()
    assert ours.iteration == theirs.iteration
    for part in ("policy", "value"):
        mine, yours = getattr(ours.learner, part), getattr(theirs.learner, part)
        assert all(torch.equal(mine[name], yours[name]) for name in mine)
