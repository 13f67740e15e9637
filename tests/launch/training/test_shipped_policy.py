"""The policy that ships: it can be loaded, and it saves passes on prompts it has never seen."""

from __future__ import annotations

import numpy as np
import pytest

from addiffusion.config import Config
from addiffusion.prompts import load_prompts
from addiffusion.records import Episode
from evaluation.comparison.contestants import agent, full_run, make_cases
from evaluation.comparison.draw import draw_cases
from evaluation.comparison.held_out import action_fractions
from evaluation.comparison.metric_table import MetricTable
from evaluation.comparison.scores import paid_scores
from launch.runtime.components import unpaid
from launch.runtime.serial import serial_components
from launch.training.policies import load_policy


@pytest.fixture(scope="module")
def drawn() -> tuple[MetricTable, MetricTable, list[Episode]]:
    """Twelve held-out prompts, by the policy and at full length; the policy's episodes."""
    policy = load_policy("shipped")
    config: Config = unpaid(policy.config(["cluster.mode=serial", "rollout.workers=1"]))
    cases = make_cases(load_prompts(config.prompts, split="test", count=12, seed=0), repeats=1, seed=config.run.seed)
    ours = agent(config.sampler, policy=0, name="policy", title="policy", c_nfe=config.reward.c_nfe)
    with serial_components(config) as components:
        components.rollouts.set_weights(policy.weights, 1)
        judge = paid_scores(components.scoring)
        found, full = (
            draw_cases(components.rollouts, one, cases, judge=judge) for one in (ours, full_run(config.sampler))
        )
    return found.table(cases), full.table(cases), list(found.episodes.values())


def test_it_spends_less_than_half_of_the_schedule(drawn: tuple[MetricTable, MetricTable, list[Episode]]) -> None:
    nfe = drawn[0].nfe.tolist()
    assert len(nfe) == 12
    assert np.mean(nfe) <= 20
    assert len(set(nfe)) > 1, "it decides per image"


def test_its_images_are_as_close_to_their_prompts(drawn: tuple[MetricTable, MetricTable, list[Episode]]) -> None:
    policy, full, _ = drawn
    assert policy.mean("clip") == pytest.approx(full.mean("clip"), abs=0.01)
    assert policy.mean("scene_soft") > full.mean("scene_soft") - 0.05


def test_it_takes_all_three_actions(drawn: tuple[MetricTable, MetricTable, list[Episode]]) -> None:
    fractions = action_fractions(drawn[2])
    assert all(fraction > 0.05 for fraction in fractions.values()), fractions
