"""What a network attended to, computed only for the rows somebody asks for.

Recorders remember what went into the attention layers of the last pass; the pass itself is left as it was.
Remembering is keeping a reference, no copy and no arithmetic, so the network's output stays bitwise the same; the price
is that these activations stay in memory until the next pass. Queries, keys and the softmax are computed afterwards, for
one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from addiffusion.errors import ContractError

_CROSS_ATTENTION, _SELF_ATTENTION = "attn2", "attn1"


class AttentionRecorder(Protocol):
    """Looks into a denoiser without changing it."""

    def forget(self) -> None:
        """Let go of the last pass before the next one, so that two are never held at once."""
        ...

    def maps(self, row: int, size: Sequence[int]) -> Float[Tensor, "token h w"]:
        """How pixels of one row of the last pass attend to each token, mean over heads and layers, resized.

        Raises:
            ContractError: nothing was denoised yet.
        """
        ...

    def self_map(self, row: int, size: Sequence[int]) -> Float[Tensor, "h w"]:
        """How much each pixel of a row is attended to by the others in the middle of the network, resized."""
        ...

    def middle(self) -> Float[Tensor, "b width"]:
        """What the middle block put out in the last pass, mean over pixels."""
        ...


class UNetRecorder:
    """Cross-attention of all layers, self-attention and output of the middle block of a diffusers UNet."""

    def __init__(self, network: nn.Module) -> None:
        middle: Any = network.get_submodule("mid_block")
        self._middle = OutputRecorder(middle)
        self._cross = [_watch(module) for module in _layers(network, _CROSS_ATTENTION)]
        self._self = [_watch(module) for module in _layers(middle, _SELF_ATTENTION)]

    def forget(self) -> None:
        """Let go of the last pass."""
        self._middle.forget()
        for layer in (*self._cross, *self._self):
            layer.forget()

    def maps(self, row: int, size: Sequence[int]) -> Float[Tensor, "token h w"]:
        """Cross-attention probabilities of one row."""
        resized = [resize_maps(layer.probabilities(row).T, size) for layer in self._cross]
        return torch.stack(resized).mean(0)

    def self_map(self, row: int, size: Sequence[int]) -> Float[Tensor, "h w"]:
        """Attention that each pixel of the middle block receives, mean over queries (arXiv:2210.00939 Eq. 6)."""
        received = torch.stack([layer.probabilities(row).mean(0) for layer in self._self]).mean(0)
        return resize_maps(received[None], size)[0]

    def middle(self) -> Float[Tensor, "b width"]:
        """Mean over pixels of the middle block's output."""
        return self._middle.output().float().mean((2, 3))


class OutputRecorder:
    """Keeps a reference to what a block put out."""

    def __init__(self, block: nn.Module) -> None:
        self._output: Any = None
        block.register_forward_hook(self._keep)

    def _keep(self, block: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG002 - torch's signature
        self._output = output

    def forget(self) -> None:
        """Let go of it."""
        self._output = None

    def output(self) -> Any:
        """The block's last output.

        Raises:
            ContractError: there was no pass yet.
        """
        if self._output is None:
            raise no_pass_yet()
        return self._output


class _Watch:
    """An attention processor that keeps its inputs and hands the work to the one it replaces."""

    def __init__(self, attention: Attention, processor: Any) -> None:
        self._attention = attention
        self._processor = processor
        self._inputs: tuple[Tensor, Tensor] | None = None

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        self._inputs = hidden_states, hidden_states if encoder_hidden_states is None else encoder_hidden_states
        return self._processor(attn, hidden_states, encoder_hidden_states, attention_mask, **options)

    def forget(self) -> None:
        self._inputs = None

    def probabilities(self, row: int) -> Float[Tensor, "pixel key"]:
        """Softmax of the row's scores over keys, mean over heads, float32."""
        if self._inputs is None:
            raise no_pass_yet()
        attention: Any = self._attention
        pixels, keys = (states[row : row + 1] for states in self._inputs)
        query = attention.head_to_batch_dim(attention.to_q(pixels))
        key = attention.head_to_batch_dim(attention.to_k(keys))
        return attention.get_attention_scores(query, key).float().mean(0)


def resize_maps(maps: Float[Tensor, "map pixel"], size: Sequence[int]) -> Float[Tensor, "map h w"]:
    """Maps over flattened pixels of the same aspect as ``size``, brought to ``size``."""
    count, pixels = maps.shape
    height = round((pixels * size[0] / size[1]) ** 0.5)
    square = maps.reshape(1, count, height, pixels // height)
    return functional.interpolate(square, size=tuple(size), mode="bilinear", align_corners=False)[0]


def no_pass_yet() -> ContractError:
    """What to raise when there is nothing to look at."""
    return ContractError("There are no attention maps or features before the first pass through the network.")


def _layers(network: nn.Module, name: str) -> list[Attention]:
    return [module for path, module in network.named_modules() if path.endswith(name) and isinstance(module, Attention)]


def _watch(module: Attention) -> _Watch:
    watch: Any = _Watch(module, module.processor)
    module.set_processor(watch)
    return watch
