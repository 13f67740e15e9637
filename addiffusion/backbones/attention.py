"""Cross-attention maps of a diffusers UNet, computed only for the rows somebody asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from addiffusion.errors import ContractError

_CROSS_ATTENTION = "attn2"


class LazyAttention:
    """Remembers what went into each cross-attention layer in the last pass; the pass itself is left as it was.

    Remembering is keeping a reference, no copy and no arithmetic, so the network's output stays bitwise the same; the
    price is that these activations stay in memory until the next pass.
    Queries, keys and the softmax are computed afterwards, for one row.
    """

    def __init__(self, network: nn.Module) -> None:
        self._layers: list[_Remember] = []
        for name, module in network.named_modules():
            if name.endswith(_CROSS_ATTENTION) and isinstance(module, Attention):
                layer: Any = _Remember(module, module.processor)
                module.set_processor(layer)
                self._layers.append(layer)

    def forget(self) -> None:
        """Let go of the last pass before the next one, so that two are never held at once."""
        for layer in self._layers:
            layer.forget()

    def maps(self, row: int, size: Sequence[int]) -> Float[Tensor, "token h w"]:
        """Attention probabilities of one row of the last pass, mean over heads and layers, resized to ``size``."""
        resized = [_resize(layer.probabilities(row), size) for layer in self._layers]
        return torch.stack(resized).mean(0)


class _Remember:
    """An attention processor that keeps its inputs and hands the work to the one it replaces."""

    def __init__(self, attention: Attention, processor: Any) -> None:
        self._attention = attention
        self._processor = processor
        self._inputs: tuple[Tensor, Tensor] | None = None

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        self._inputs = hidden_states, encoder_hidden_states
        return self._processor(attn, hidden_states, encoder_hidden_states, attention_mask, **options)

    def forget(self) -> None:
        self._inputs = None

    def probabilities(self, row: int) -> Float[Tensor, "pixel token"]:
        """Softmax of the row's scores over tokens, mean over heads, float32."""
        if self._inputs is None:
            raise ContractError("There are no attention maps before the first pass through the network.")
        attention: Any = self._attention
        pixels, tokens = (states[row : row + 1] for states in self._inputs)
        query = attention.head_to_batch_dim(attention.to_q(pixels))
        key = attention.head_to_batch_dim(attention.to_k(tokens))
        return attention.get_attention_scores(query, key).float().mean(0)


def _resize(probabilities: Float[Tensor, "pixel token"], size: Sequence[int]) -> Float[Tensor, "token h w"]:
    pixels, tokens = probabilities.shape
    height = round((pixels * size[0] / size[1]) ** 0.5)
    maps = probabilities.T.reshape(1, tokens, height, pixels // height)
    return functional.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)[0]
