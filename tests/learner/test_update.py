from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import ray
import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.evaluation.postprocessing import Postprocessing

from addiffusion.errors import CheckpointError, ContractError, UpdateError
from addiffusion.records import Episode
from learner.algorithm_config import build_ppo_config, entropy_schedule
from learner.connector import WEIGHTS
from learner.gae import estimate_advantages, standardise
from learner.ppo_learner import SCHEDULE_KEY
from learner.update import PolicyLearner, to_single_agent_episode
from tests.learner.toy import WIDTH, make_episodes, toy_config, toy_episode, toy_ticket
from tests.learner.toy_learner import toy_learner


def same(left: PolicyLearner, right: PolicyLearner) -> bool:
    ours, theirs = left.weights(), right.weights()
    return all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_needs_no_ray_and_leaves_the_callers_threads_and_random_streams_alone() -> None:
    was_running, threads = ray.is_initialized(), torch.get_num_threads()
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - RLlib shuffles with this generator
    expected = torch.rand(1), np.random.rand()  # noqa: NPY002
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    toy_learner(toy_config()).update(make_episodes(), iteration=0)
    assert (torch.rand(1), np.random.rand()) == expected  # noqa: NPY002
    assert ray.is_initialized() == was_running
    assert torch.get_num_threads() == threads


def test_an_update_is_a_function_of_weights_episodes_and_iteration() -> None:
    learners = [toy_learner(toy_config()) for _ in range(3)]
    for learner, iteration in zip(learners, (4, 4, 5), strict=True):
        learner.update(make_episodes(), iteration=iteration)
    assert same(learners[0], learners[1])
    assert not same(learners[0], learners[2])


def test_the_seed_decides_the_first_weights() -> None:
    assert same(toy_learner(toy_config(seed=1)), toy_learner(toy_config(seed=1)))
    assert not same(toy_learner(toy_config(seed=1)), toy_learner(toy_config(seed=2)))


def test_reports_what_a_practitioner_watches() -> None:
    metrics = toy_learner(toy_config()).update(make_episodes(), iteration=0)
    assert set(metrics) == {
        *("total_loss", "policy_loss", "vf_loss", "entropy", "approx_kl", "clip_frac", "grad_norm"),
        *("entropy_coeff", "explained_variance", "decisions_trained"),
    }
    assert metrics["entropy"] == pytest.approx(np.log(3), abs=0.05)
    assert metrics["grad_norm"] > 0


def test_episodes_of_one_decision_are_enough() -> None:
    learner = toy_learner(toy_config())
    before = learner.weights()
    learner.update(make_episodes([1] * 8), iteration=0)
    assert any((before[name] != value).any() for name, value in learner.weights().items())


def test_an_episode_without_decisions_is_refused() -> None:
    empty = toy_episode(toy_ticket(3), phi=np.zeros((0, WIDTH), np.float32), actions=[], rewards=[])
    with pytest.raises(ContractError, match="ticket 3 has no decision"):
        toy_learner(toy_config()).update([empty], iteration=0)


def test_a_value_that_is_not_finite_stops_the_update() -> None:
    broken = make_episodes()
    broken[0].terms[0, 0] = np.nan
    learner = toy_learner(toy_config())
    before = learner.weights()
    with pytest.raises(UpdateError, match=r"iteration 3 .* nan"):
        learner.update(broken, iteration=3)
    assert all((before[name] == value).all() for name, value in learner.weights().items())


def test_the_entropy_coefficient_follows_the_iteration_also_on_a_fresh_learner() -> None:
    config = toy_config(iterations=11, entropy_start=0.05, entropy_end=0.01)
    for iteration, expected in ((0, 0.05), (5, 0.03), (10, 0.01), (20, 0.01)):
        metrics = toy_learner(config).update(make_episodes(), iteration=iteration)
        assert metrics["entropy_coeff"] == pytest.approx(expected)


def test_a_run_of_one_iteration_has_a_fixed_entropy_coefficient() -> None:
    assert entropy_schedule(toy_config(iterations=1, entropy_start=0.3).ppo) == 0.3


def test_rllibs_batch_holds_every_decision_once_with_our_advantages() -> None:
    learner = build_ppo_config(toy_config(gamma_d=0.99), observation_width=WIDTH).build_learner()
    episodes = make_episodes()
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    with torch.no_grad():
        values = [module.value(torch.from_numpy(episode.phi)).numpy() for episode in episodes]
    advantages = [
        estimate_advantages(episode.rewards, value, gamma_d=0.99, gae_lambda=0.95)
        for episode, value in zip(episodes, values, strict=True)
    ]
    data = TrainingData(episodes=[to_single_agent_episode(episode) for episode in episodes])
    columns = learner._make_batch_if_necessary(data)[DEFAULT_MODULE_ID]
    np.testing.assert_array_equal(columns["obs"], np.concatenate([episode.phi for episode in episodes]))
    np.testing.assert_array_equal(columns["actions"], np.concatenate([episode.actions for episode in episodes]))
    np.testing.assert_array_equal(columns["action_logp"], np.concatenate([e.log_prob for e in episodes]))
    np.testing.assert_allclose(
        columns[Postprocessing.ADVANTAGES], standardise(np.concatenate(advantages)), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        columns[Postprocessing.VALUE_TARGETS], np.concatenate(advantages) + np.concatenate(values), rtol=1e-4, atol=1e-5
    )


def test_the_loss_is_rllibs_own_on_the_same_minibatch() -> None:
    learner = build_ppo_config(toy_config(entropy_start=0.03), observation_width=WIDTH).build_learner()
    learner.before_gradient_based_update(timesteps={SCHEDULE_KEY: 0})
    data = TrainingData(episodes=[to_single_agent_episode(episode) for episode in make_episodes()])
    columns = learner._make_batch_if_necessary(data)[DEFAULT_MODULE_ID]
    config = learner.config.get_config_for_module(DEFAULT_MODULE_ID)
    inputs = {"module_id": DEFAULT_MODULE_ID, "config": config, "batch": columns}
    forward = learner.module[DEFAULT_MODULE_ID].forward_train(columns)
    ours = learner.compute_loss_for_module(**inputs, fwd_out=forward)
    theirs = PPOTorchLearner.compute_loss_for_module(learner, **inputs, fwd_out=forward)
    torch.testing.assert_close(ours, theirs)


def test_appo_is_ppo_where_no_decision_is_old() -> None:
    episodes = on_policy(toy_learner(toy_config()))
    ppo, appo = (toy_learner(toy_config(algorithm=algorithm)) for algorithm in ("ppo", "appo"))
    for learner in (ppo, appo):
        learner.update(episodes, iteration=0)
    for name, value in appo.weights().items():
        np.testing.assert_allclose(value, ppo.weights()[name], atol=1e-5)


def test_appo_compares_with_the_present_policy_and_trusts_old_decisions_less() -> None:
    episodes = make_episodes()  # actions of a uniform policy, which a trained one is far from
    learner = toy_learner(toy_config(algorithm="appo", epochs=1, minibatch_size=1000))
    metrics = learner.update(episodes, iteration=0)
    assert metrics["approx_kl"] == pytest.approx(0, abs=1e-6)
    assert metrics["clip_frac"] == 0


def on_policy(learner: PolicyLearner) -> list[Episode]:
    """The episodes as if this learner's policy had acted in them."""
    network = learner._module.policy
    with torch.no_grad():
        return [
            replace(
                episode,
                logits=(logits := network(torch.from_numpy(episode.phi))).numpy(),
                log_prob=torch.log_softmax(logits, -1).numpy()[np.arange(len(episode.actions)), episode.actions],
            )
            for episode in make_episodes()
        ]


def test_weighting_by_episode_lets_short_episodes_count_as_much() -> None:
    def share(weighting: str) -> float:
        """Of the episode with one decision, beside one with 60."""
        learner = toy_learner(toy_config(weighting=weighting))
        data = TrainingData(episodes=[to_single_agent_episode(episode) for episode in make_episodes([1, 60])])
        columns = learner._learner._make_batch_if_necessary(data)[DEFAULT_MODULE_ID]
        return float(columns[WEIGHTS][0] / columns[WEIGHTS].sum())

    assert share("decision") == pytest.approx(1 / 61)
    assert share("episode") == pytest.approx(1 / 2)


def test_a_learner_with_a_restored_state_goes_on_bitwise_alike() -> None:
    learner = toy_learner(toy_config())
    learner.update(make_episodes(), iteration=0)
    other = toy_learner(toy_config(seed=9))
    other.load_state(learner.state())
    for one in (learner, other):
        one._learner.config.learner_config_dict["seed"] = 0
        one.update(make_episodes(seed=1), iteration=1)
    assert same(learner, other)


def test_a_state_of_other_widths_is_refused() -> None:
    narrow = toy_config().model_copy(update={"policy": toy_config().policy.model_copy(update={"hidden": (8,)})})
    with pytest.raises(CheckpointError, match=r"policy\.hidden"):
        toy_learner(toy_config()).load_state(toy_learner(narrow).state())


def test_a_dear_episode_weighs_no_more_where_prices_are_scaled() -> None:
    """All rewards of an episode are divided by one number, which its price gives."""
    ticket = toy_ticket(1)
    episode = toy_episode(ticket, phi=np.zeros((3, WIDTH), np.float32), actions=[0, 0, 1], rewards=[-4.0, -4.0, 2.0])
    plain = to_single_agent_episode(episode).get_rewards()
    scaled = to_single_agent_episode(episode, price_scale=30.0).get_rewards()
    np.testing.assert_array_equal(plain, np.float32([-4.0, -4.0, 2.0]))
    np.testing.assert_allclose(scaled, plain / (1 + 30 * ticket.c_nfe), rtol=1e-6)


def test_the_scale_of_prices_reaches_the_update() -> None:
    plain, scaled = toy_learner(toy_config()), toy_learner(toy_config(price_scale=100.0))
    losses = [learner.update(make_episodes(), iteration=0)["vf_loss"] for learner in (plain, scaled)]
    assert losses[1] < losses[0]
