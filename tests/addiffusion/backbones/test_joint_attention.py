"""Lazy maps of joint attention against maps stored eagerly by processors that compute them in the open."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import JointAttnProcessor2_0
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor
from torch import Tensor
from torch.nn import functional

from addiffusion.backbones.joint_attention import JointRecorder
from addiffusion.errors import ContractError
from tests.addiffusion.tiny_models import make_flux_transformer, make_sd3_transformer

TOKENS, SIDE = 5, 4


class EagerSd3(JointAttnProcessor2_0):
    """Stores the whole softmax, (batch, all tokens, all tokens), beside what diffusers computes."""

    def __init__(self, store: list[Tensor]) -> None:
        super().__init__()
        self.store = store

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Any = None, *args: Any, **k: Any
    ) -> Any:
        if encoder_hidden_states is None:  # the second attention of SD 3.5's dual blocks: the image alone
            return super().__call__(attn, hidden_states, encoder_hidden_states, *args, **k)

        def heads(states: Tensor) -> Tensor:
            return states.view(len(states), -1, attn.heads, states.shape[-1] // attn.heads).transpose(1, 2)

        query = torch.cat(
            [
                attn.norm_q(heads(attn.to_q(hidden_states))),
                attn.norm_added_q(heads(attn.add_q_proj(encoder_hidden_states))),
            ],
            2,
        )
        key = torch.cat(
            [
                attn.norm_k(heads(attn.to_k(hidden_states))),
                attn.norm_added_k(heads(attn.add_k_proj(encoder_hidden_states))),
            ],
            2,
        )
        self.store.append(softmax(query, key))
        return super().__call__(attn, hidden_states, encoder_hidden_states, *args, **k)


class EagerFlux(FluxAttnProcessor):
    """The same for Flux: text first, rotary embeddings."""

    def __init__(self, store: list[Tensor]) -> None:
        super().__init__()
        self.store = store

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Any = None,
        attention_mask: Any = None,
        image_rotary_emb: Any = None,
    ) -> Any:
        def heads(states: Tensor) -> Tensor:
            return states.unflatten(-1, (-1, attn.head_dim))

        query, key = attn.norm_q(heads(attn.to_q(hidden_states))), attn.norm_k(heads(attn.to_k(hidden_states)))
        if encoder_hidden_states is not None:
            query = torch.cat([attn.norm_added_q(heads(attn.add_q_proj(encoder_hidden_states))), query], 1)
            key = torch.cat([attn.norm_added_k(heads(attn.add_k_proj(encoder_hidden_states))), key], 1)
        query, key = (apply_rotary_emb(states, image_rotary_emb, sequence_dim=1) for states in (query, key))
        self.store.append(softmax(query.transpose(1, 2), key.transpose(1, 2)))
        return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb)


def softmax(query: Tensor, key: Tensor) -> Tensor:
    return (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1).mean(1)


def run_sd3(network: Any) -> Tensor:
    draws = torch.Generator().manual_seed(1)
    z = torch.randn(3, 4, 2 * SIDE, 2 * SIDE, generator=draws)
    text, pooled = torch.randn(3, TOKENS, 32, generator=draws), torch.randn(3, 32, generator=draws)
    with torch.inference_mode():
        return network(
            z, encoder_hidden_states=text, pooled_projections=pooled, timestep=torch.tensor([9.0, 500.0, 990.0])
        ).sample


def run_flux(network: Any) -> Tensor:
    draws = torch.Generator().manual_seed(1)
    z = torch.randn(3, SIDE * SIDE, 16, generator=draws)
    text, pooled = torch.randn(3, TOKENS, 32, generator=draws), torch.randn(3, 32, generator=draws)
    ids = torch.zeros(SIDE * SIDE, 3)
    ids[:, 1], ids[:, 2] = torch.arange(SIDE).repeat_interleave(SIDE), torch.arange(SIDE).repeat(SIDE)
    with torch.inference_mode():
        return network(
            z,
            encoder_hidden_states=text,
            pooled_projections=pooled,
            timestep=torch.tensor([0.01, 0.5, 0.99]),
            img_ids=ids,
            txt_ids=torch.zeros(TOKENS, 3),
        ).sample


FAMILIES: dict[str, tuple[Any, Any, Any]] = {
    "sd3": (make_sd3_transformer, run_sd3, EagerSd3),
    "sd35": (partial(make_sd3_transformer, dual_attention_layers=(0, 1)), run_sd3, EagerSd3),
    "flux": (make_flux_transformer, run_flux, EagerFlux),
}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> tuple[Any, Any, Any, bool]:
    make, run, eager = FAMILIES[request.param]
    torch.manual_seed(0)
    return make(), run, eager, request.param != "flux"


def test_the_output_is_bitwise_unchanged(family: Any) -> None:
    network, run, _, _ = family
    before = run(network)
    JointRecorder(network)
    assert torch.equal(run(network), before)


def test_maps_equal_eagerly_stored_probabilities(family: Any) -> None:
    """All layers: of Flux, both the double- and the single-stream ones."""
    network, run, eager, image_first = family
    stored: list[Tensor] = []
    own = dict(network.attn_processors)
    network.set_attn_processor({name: eager(stored) for name in own})
    run(network)
    network.set_attn_processor(own)
    recorder = JointRecorder(network)
    run(network)
    assert len(stored) == 3
    pixels = SIDE * SIDE
    image, text = (slice(0, pixels), slice(pixels, None)) if image_first else (slice(TOKENS, None), slice(0, TOKENS))
    with torch.inference_mode():
        maps = recorder.record((8, 8)).attention_maps(range(3))
        received = recorder.record((8, 8)).self_attention_maps(range(3))
        assert torch.equal(maps[1:2], recorder.record((8, 8)).attention_maps([1]))
    for row in range(3):
        layers = [shares(probabilities[row, image, text]) for probabilities in stored]
        torch.testing.assert_close(maps[row], torch.stack(layers).mean(0), rtol=0, atol=1e-6)
        middle = stored[1][row, image, image].mean(0)
        torch.testing.assert_close(received[row], resized(middle[None])[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(maps.sum(1), torch.ones(3, 8, 8))


def shares(probabilities: Tensor) -> Tensor:
    return resized((probabilities / probabilities.sum(-1, keepdim=True)).T)


def resized(maps: Tensor) -> Tensor:
    return functional.interpolate(maps.reshape(1, -1, SIDE, SIDE), size=(8, 8), mode="bilinear", align_corners=False)[0]


def test_the_middle_is_one_vector_per_row(family: Any) -> None:
    network, run, _, _ = family
    recorder = JointRecorder(network)
    with pytest.raises(ContractError, match="before the first pass"):
        recorder.record((8, 8))
    run(network)
    middle = recorder.record((8, 8)).middle_features()
    assert middle.shape == (3, 32)
    assert middle.isfinite().all()
