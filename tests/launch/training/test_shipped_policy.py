"""The policy that ships: it can be loaded, and it saves passes on prompts it has never seen."""

from __future__ import annotations

import numpy as np
import pytest

from addiffusion.actions import Action
from addiffusion.config import Config
from addiffusion.prompts import load_prompts
from evaluation.comparison.holdout import Arm, ArmResult, action_fractions, arm_tickets, run_arm
from launch.runtime.components import unpaid
from launch.runtime.serial import serial_components
from launch.training.policies import load_policy


@pytest.fixture(scope="module")
def drawn() -> dict[str, ArmResult]:
    """Twelve held-out prompts, by the policy and at full length."""
    policy = load_policy("shipped")
    config: Config = unpaid(policy.config(["cluster.mode=serial", "rollout.workers=1"]))
    prompts = load_prompts(config.prompts, split="test", count=12, seed=0)
    with serial_components(config) as components:
        components.rollouts.set_weights(policy.weights, 1)
        arms = (Arm(name="policy", title="policy"), Arm(name="full", title="full", forced=Action.CONTINUE))
        return {
            arm.name: run_arm(components.rollouts, components.scoring, arm, arm_tickets(arm, prompts, config))
            for arm in arms
        }


def test_it_spends_less_than_half_of_the_schedule(drawn: dict[str, ArmResult]) -> None:
    nfe = [episode.nfe for episode in drawn["policy"].episodes]
    assert len(nfe) == 12
    assert np.mean(nfe) <= 20
    assert len(set(nfe)) > 1, "it decides per image"


def test_its_images_are_as_close_to_their_prompts(drawn: dict[str, ArmResult]) -> None:
    assert drawn["policy"].mean_score("clip") == pytest.approx(drawn["full"].mean_score("clip"), abs=0.01)
    assert drawn["policy"].mean_score("scene_soft") > drawn["full"].mean_score("scene_soft") - 0.05


def test_it_takes_all_three_actions(drawn: dict[str, ArmResult]) -> None:
    fractions = action_fractions(drawn["policy"].episodes)
    assert all(fraction > 0.05 for fraction in fractions.values()), fractions
