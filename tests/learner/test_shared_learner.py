"""One gradient step shared between processes."""

from __future__ import annotations

import numpy as np
import pytest

from learner.algorithm_config import build_ppo_config
from learner.shared_learner import SharedLearner
from tests.learner.toy import WIDTH, make_episodes, toy_config
from tests.learner.toy_learner import toy_learner


@pytest.mark.slow
def test_several_learners_are_one(ray_cluster: str) -> None:
    config = toy_config(learners=2, minibatch_size=7)
    group = build_ppo_config(config, observation_width=WIDTH).build_learner_group()
    several, one = SharedLearner(group), toy_learner(toy_config(minibatch_size=7))
    try:
        several.load_state(one.state())
        for iteration in (0, 1):
            theirs = several.update(make_episodes(seed=iteration), iteration=iteration)
            ours = one.update(make_episodes(seed=iteration), iteration=iteration)
            assert theirs["decisions_trained"] == ours["decisions_trained"] == 21
            assert theirs["grad_norm"] == pytest.approx(ours["grad_norm"], rel=1e-3)
        for name, value in several.weights().items():
            np.testing.assert_allclose(value, one.weights()[name], atol=1e-4)
    finally:
        group.shutdown()
