from __future__ import annotations

import pytest
import torch
from torch import nn

from addiffusion.actions import ACTION_COUNT
from addiffusion.policy import HIDDEN_GAIN, POLICY_GAIN, VALUE_GAIN, PolicyNetwork, ValueNetwork, build_mlp


def _linears(network: nn.Module) -> list[nn.Linear]:
    return [module for module in network.modules() if isinstance(module, nn.Linear)]


def test_shapes_follow_widths_and_hidden() -> None:
    phi = torch.randn(5, 40)
    assert PolicyNetwork(40, (32, 16))(phi).shape == (5, ACTION_COUNT)
    assert ValueNetwork(40, (32, 16))(phi).shape == (5,)
    assert [(layer.in_features, layer.out_features) for layer in _linears(PolicyNetwork(40, (32, 16)))] == [
        (40, 32),
        (32, 16),
        (16, ACTION_COUNT),
    ]


def test_batch_and_time_axes_pass_through() -> None:
    phi = torch.randn(2, 3, 40)
    assert PolicyNetwork(40, (8,))(phi).shape == (2, 3, ACTION_COUNT)
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
    assert (probabilities - 1 / ACTION_COUNT).abs().max() < 0.02


def test_no_hidden_layer_is_a_linear_head() -> None:
    assert len(_linears(build_mlp((4, 2), head_gain=1.0))) == 1


def test_same_batch_shape_makes_rows_independent_of_neighbours() -> None:
    network = PolicyNetwork(40, (32, 16))
    phi = torch.randn(6, 40)
    alone = torch.zeros_like(phi)
    alone[4] = phi[4]
    assert torch.equal(network(phi)[4], network(alone)[4])
