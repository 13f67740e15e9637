from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from addiffusion import seeds
from addiffusion.actions import FIRST_ACTIONS, Action
from addiffusion.observation.layout import PREVIEW_CLIP, Layout
from addiffusion.policy import HIDDEN_GAIN, POLICY_GAIN, VALUE_GAIN, PolicyNetwork, ValueNetwork, build_mlp, choose


def _linears(network: nn.Module) -> list[nn.Linear]:
    return [module for module in network.modules() if isinstance(module, nn.Linear)]


def test_shapes_follow_widths_and_hidden() -> None:
    phi = torch.randn(5, 40)
    assert PolicyNetwork(40, (32, 16))(phi).shape == (5, len(FIRST_ACTIONS))
    assert ValueNetwork(40, (32, 16))(phi).shape == (5,)
    assert [(layer.in_features, layer.out_features) for layer in _linears(PolicyNetwork(40, (32, 16)))] == [
        (40, 32),
        (32, 16),
        (16, len(FIRST_ACTIONS)),
    ]


def test_batch_and_time_axes_pass_through() -> None:
    phi = torch.randn(2, 3, 40)
    assert PolicyNetwork(40, (8,))(phi).shape == (2, 3, len(FIRST_ACTIONS))
    assert ValueNetwork(40, (8,))(phi).shape == (2, 3)


@pytest.mark.parametrize(("network", "head_gain"), [(PolicyNetwork, POLICY_GAIN), (ValueNetwork, VALUE_GAIN)])
def test_layers_are_orthogonal_with_their_gain(network: type[PolicyNetwork | ValueNetwork], head_gain: float) -> None:
    layers = _linears(network(40, (32, 16)))
    for layer, gain in zip(layers, (HIDDEN_GAIN, HIDDEN_GAIN, head_gain), strict=True):
        gram = layer.weight @ layer.weight.T  # fewer outputs than inputs: the rows are orthogonal
        torch.testing.assert_close(gram, gain**2 * torch.eye(len(gram)), atol=1e-5, rtol=1e-4)
        assert not layer.bias.any()


def test_first_policy_is_close_to_uniform() -> None:
    probabilities = PolicyNetwork(200, (512, 256))(torch.randn(64, 200)).softmax(-1)
    assert (probabilities - 1 / len(FIRST_ACTIONS)).abs().max() < 0.02


def test_first_policy_is_close_to_its_prior() -> None:
    prior = (0.88, 0.06, 0.06)
    probabilities = PolicyNetwork(200, (512, 256), prior=prior)(torch.randn(64, 200)).softmax(-1)
    assert (probabilities - torch.tensor(prior)).abs().max() < 0.02


def test_no_hidden_layer_is_a_linear_head() -> None:
    assert len(_linears(build_mlp((4, 2), head_gain=1.0))) == 1


def test_same_batch_shape_makes_rows_independent_of_neighbours() -> None:
    network = PolicyNetwork(40, (32, 16))
    phi = torch.randn(6, 40)
    alone = torch.zeros_like(phi)
    alone[4] = phi[4]
    assert torch.equal(network(phi)[4], network(alone)[4])


@pytest.mark.parametrize("hidden", [(), (32, 16), (512, 256)])
def test_a_frozen_policy_answers_as_it_stood_whatever_is_learned_later(hidden: tuple[int, ...]) -> None:
    network = PolicyNetwork(40, hidden, actions=("continue", "stop", "leap"))
    phi = torch.randn(8, 40)
    logits, then = network.frozen(), network(phi).detach()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    torch.testing.assert_close(logits(phi), then)
    assert not torch.allclose(network(phi), then)
    company = [torch.cat([torch.randn(place, 40), phi[3:4], torch.randn(7 - place, 40)]) for place in range(8)]
    alone = logits(phi)[3]
    assert all(torch.equal(logits(row)[place], alone) for place, row in enumerate(company)), "of its place, too"


@pytest.mark.parametrize("width", [361, 362, 367, 369])
@pytest.mark.parametrize("count", [2, 3, 4, 8])
def test_an_answer_does_not_depend_on_a_rows_place(width: int, count: int) -> None:
    network, layout = PolicyNetwork(width, (512, 256)), Layout(names=("all",), widths=(width,))
    row = torch.randn(width).numpy()
    found: set[tuple[float, ...]] = set()
    for place in range(count):
        phi = layout.blank(count)
        assert not phi.any()
        assert phi.shape == (count, width)
        phi[:] = torch.randn(count, width).numpy()
        phi[place] = row
        found.add(tuple(network(torch.from_numpy(phi))[place].tolist()))
    assert len(found) == 1


def test_draws_follow_the_distribution() -> None:
    logits = np.log(np.array([0.5, 0.2, 0.3], np.float32))
    generator = seeds.generator("draws")
    drawn = np.array([choose(logits, generator)[0] for _ in range(4000)])
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / len(drawn), [0.5, 0.2, 0.3], atol=0.03)


def test_log_probability_is_that_of_the_action_taken() -> None:
    logits = np.array([2.0, -1.0, 0.5], np.float32)
    generator = seeds.generator("log-prob")
    expected = torch.log_softmax(torch.from_numpy(logits), -1)
    for _ in range(20):
        action, log_prob = choose(logits, generator)
        assert log_prob == pytest.approx(float(expected[action]), abs=1e-6)


def test_without_a_generator_the_likeliest_action_is_taken() -> None:
    assert choose(np.array([0.0, 3.0, 1.0], np.float32), None)[0] is Action.STOP


@pytest.mark.parametrize("sure", list(Action)[:3])
def test_extreme_logits_draw_the_sure_action(sure: Action) -> None:
    logits = np.full(3, -1e30, np.float32)
    logits[sure] = 1e30
    assert choose(logits, seeds.generator("sure", int(sure))) == (sure, 0.0)


def test_one_uniform_number_per_draw() -> None:
    used, fresh = seeds.generator("stream"), seeds.generator("stream")
    choose(np.zeros(3, np.float32), used)
    torch.rand((), generator=fresh, dtype=torch.float64)
    assert torch.equal(used.get_state(), fresh.get_state())


def test_a_forbidden_action_has_no_probability_and_no_gradient() -> None:
    network = PolicyNetwork(3, (4,), actions=("continue", "stop"))
    logits = network(torch.ones(2, 3))
    probs = torch.softmax(logits, -1)
    assert (probs[:, Action.REFINE] == 0).all()
    assert torch.isfinite(-(probs * torch.log_softmax(logits, -1)).sum())
    assert set(network.state_dict()) == set(PolicyNetwork(3, (4,)).state_dict())


def test_a_policy_in_doubt_draws_again_what_scores_low() -> None:
    phi, network = torch.zeros(3, 12), PolicyNetwork(12, (16, 8), actions=("continue", "stop", "redraw"))
    phi[:, PREVIEW_CLIP] = torch.tensor([2.0, 0.0, -3.0])
    before = network(phi)
    network.doubt(PREVIEW_CLIP)
    odds = network(phi)[:, Action.REDRAW] - network(phi)[:, Action.CONTINUE]
    assert odds.tolist() == pytest.approx([0, 0, 3], abs=0.05)
    assert (network(phi)[:, :2] - before[:, :2]).abs().max() < 0.05


def test_sharpening_multiplies_the_odds_of_stop_and_leaves_refine_and_every_preference() -> None:
    torch.manual_seed(0)
    phi, network = torch.randn(50, 40), PolicyNetwork(40, (16,), prior=(0.5, 0.3, 0.2))
    before = network(phi)
    network.sharpen(6.0)
    after = network(phi)
    margin = before[:, Action.STOP] - before[:, Action.CONTINUE]
    torch.testing.assert_close(after[:, Action.STOP] - after[:, Action.CONTINUE], 6 * margin)
    torch.testing.assert_close(after[:, Action.REFINE], before[:, Action.REFINE])
    torch.testing.assert_close(after.sum(1), before.sum(1))
