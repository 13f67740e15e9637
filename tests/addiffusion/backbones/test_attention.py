"""Lazy attention maps against maps stored eagerly by a processor that computes them in the open."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from addiffusion.backbones import attention
from addiffusion.backbones.attention import UNetRecorder
from addiffusion.errors import ContractError
from tests.addiffusion.tiny_models import TEXT_WIDTH, make_unet

TOKENS = 7


class EagerProcessor(AttnProcessor):
    """diffusers' textbook attention, storing every probability."""

    def __init__(self, store: list[Tensor]) -> None:
        super().__init__()
        self.store = store

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **options: Any) -> Tensor:
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
        value = attn.head_to_batch_dim(attn.to_v(encoder_hidden_states))
        probabilities = attn.get_attention_scores(query, key)
        self.store.append(probabilities.unflatten(0, (len(hidden_states), attn.heads)).mean(1))
        return attn.to_out[0](attn.batch_to_head_dim(torch.bmm(probabilities, value)))


SHAPES: dict[str, dict[str, Any]] = {
    "sd15": {},
    "sdxl": {"transformer_layers_per_block": (1, 2), "use_linear_projection": True, "attention_head_dim": (2, 4)},
}


@pytest.fixture(params=SHAPES)
def unet(request: pytest.FixtureRequest) -> UNet2DConditionModel:
    torch.manual_seed(0)
    return make_unet(**SHAPES[request.param])


def inputs(height: int = 8, width: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    draws = torch.Generator().manual_seed(1)
    z = torch.randn(4, 4, height, width, generator=draws)
    return z, torch.tensor([1.0, 300.0, 600.0, 999.0]), torch.randn(4, TOKENS, TEXT_WIDTH, generator=draws)


def run(unet: UNet2DConditionModel, z: Tensor, t: Tensor, hidden: Tensor) -> Tensor:
    with torch.inference_mode():
        return unet(z, t, encoder_hidden_states=hidden).sample


def test_the_output_is_bitwise_unchanged(unet: UNet2DConditionModel) -> None:
    before = run(unet, *inputs())
    UNetRecorder(unet)
    assert torch.equal(run(unet, *inputs()), before)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 16)])
def test_maps_equal_eagerly_stored_probabilities(unet: UNet2DConditionModel, height: int, width: int) -> None:
    stored: list[Tensor] = []
    eager = {
        name: EagerProcessor(stored) if "attn2" in name else processor
        for name, processor in unet.attn_processors.items()
    }
    own = dict(unet.attn_processors)
    unet.set_attn_processor(eager)
    run(unet, *inputs(height, width))
    unet.set_attn_processor(own)
    lazy = UNetRecorder(unet)
    run(unet, *inputs(height, width))
    assert len(stored) == sum(name.endswith("attn2") for name, _ in unet.named_modules())
    with torch.inference_mode():
        maps = lazy.record((height, width)).attention_maps(range(4))
    for row in range(4):
        layers = [resized(probabilities[row], height, width) for probabilities in stored]
        torch.testing.assert_close(maps[row], torch.stack(layers).mean(0), rtol=0, atol=1e-6)
    torch.testing.assert_close(maps.sum(1), torch.ones(4, height, width))


def resized(probabilities: Tensor, height: int, width: int) -> Tensor:
    shrink = round((height * width / len(probabilities)) ** 0.5)
    maps = probabilities.T.reshape(1, -1, height // shrink, width // shrink)
    return functional.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)[0]


@given(rows=st.lists(st.integers(0, 3), min_size=1, max_size=6), held=st.sampled_from((1, 3000, 2**24)))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_maps_of_a_row_are_bitwise_the_same_beside_any_others(
    unet: UNet2DConditionModel, rows: list[int], held: int
) -> None:
    """Also where memory does not hold all layers and rows at once; that changes which layers are added up first."""
    recorder = UNetRecorder(unet)
    run(unet, *inputs())
    record = recorder.record((8, 8))
    with torch.inference_mode(), mock.patch.object(attention, "_HELD", held):
        together, received = record.attention_maps(rows), record.self_attention_maps(rows)
        for number, row in enumerate(rows):
            assert torch.equal(together[number], record.attention_maps([row])[0])
            assert torch.equal(received[number], record.self_attention_maps([row])[0])


def test_maps_are_those_of_the_last_pass(unet: UNet2DConditionModel) -> None:
    lazy = UNetRecorder(unet)
    z, t, hidden = inputs()
    run(unet, z, t, hidden)
    with torch.inference_mode():
        first = lazy.record((8, 8)).attention_maps([2])[0]
        run(unet, z, t, hidden.flip(0))
        swapped = lazy.record((8, 8)).attention_maps([2])[0]
        run(unet, z, t, hidden)
        again = lazy.record((8, 8)).attention_maps([2])[0]
    assert torch.equal(first, again)
    assert not torch.allclose(first, swapped)


def test_nothing_is_seen_before_the_first_pass_and_a_record_outlives_the_next(unet: UNet2DConditionModel) -> None:
    recorder = UNetRecorder(unet)
    run(unet, *inputs())
    kept = recorder.record((8, 8))
    recorder.begin()
    with pytest.raises(ContractError, match="before the first pass"):
        recorder.record((8, 8))
    with torch.inference_mode():
        assert kept.attention_maps([0]).shape == (1, TOKENS, 8, 8)


def test_a_copy_of_what_was_seen_says_the_same(unet: UNet2DConditionModel) -> None:
    recorder = UNetRecorder(unet)
    run(unet, *inputs())
    with torch.inference_mode():
        before = recorder.record((8, 8)).attention_maps([1])[0]
        recorder.own()
        assert torch.equal(recorder.record((8, 8)).attention_maps([1])[0], before)


def test_the_self_map_is_what_each_pixel_of_the_middle_receives(unet: UNet2DConditionModel) -> None:
    stored: list[Tensor] = []
    own = dict(unet.attn_processors)
    eager = {
        name: SelfProcessor(stored) if name.startswith("mid_block") and "attn1" in name else processor
        for name, processor in own.items()
    }
    unet.set_attn_processor(eager)
    run(unet, *inputs())
    unet.set_attn_processor(own)
    recorder = UNetRecorder(unet)
    run(unet, *inputs())
    for row in range(4):
        mean = torch.stack([probabilities[row].mean(0) for probabilities in stored]).mean(0)
        expected = functional.interpolate(mean.view(1, 1, 4, 4), size=(8, 8), mode="bilinear")[0, 0]
        with torch.inference_mode():
            received = recorder.record((8, 8)).self_attention_maps([row])[0]
        torch.testing.assert_close(received, expected, rtol=0, atol=1e-6)


class SelfProcessor(EagerProcessor):
    """The same for attention of the pixels to themselves."""

    def __call__(self, attn: Any, hidden_states: Tensor, *args: Any, **options: Any) -> Tensor:
        return super().__call__(attn, hidden_states, hidden_states)


def test_the_middle_is_the_mean_of_the_middle_blocks_output(unet: UNet2DConditionModel) -> None:
    seen: list[Tensor] = []
    unet.mid_block.register_forward_hook(lambda *io: seen.append(io[2]))
    recorder = UNetRecorder(unet)
    run(unet, *inputs())
    torch.testing.assert_close(recorder.record((8, 8)).middle_features(), seen[0].mean((2, 3)))
    assert recorder.record((8, 8)).middle_features().shape == (4, 16)


def test_a_compiled_network_is_one_graph_and_is_still_seen() -> None:
    torch.manual_seed(0)
    unet = make_unet()
    recorder = UNetRecorder(unet)
    before = run(unet, *inputs())
    with torch.inference_mode():
        maps = recorder.record((8, 8)).attention_maps([1])[0]
    graphs: list[Any] = []

    def as_it_is(graph: Any, examples: Any) -> Any:
        graphs.append(graph)
        return graph

    compiled: Any = torch.compile(unet, backend=as_it_is)
    for _ in range(2):
        recorder.begin()
        after = run(compiled, *inputs())
    assert len(graphs) == 1
    assert torch.equal(after, before)
    with torch.inference_mode():
        assert torch.equal(recorder.record((8, 8)).attention_maps([1])[0], maps)
