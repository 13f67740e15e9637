"""Attention of transformers that mix image and text tokens in one sequence: SD3 and Flux."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_flux import FluxAttention
from jaxtyping import Float
from torch import Tensor, nn

from addiffusion.backbones.attention import OutputRecorder, no_pass_yet, resize_maps

_QUERIES = 1024
"""Most image tokens whose probabilities over all keys are held at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heads:
    """Queries of the image tokens and keys of all tokens, of one row."""

    query: Float[Tensor, "head pixel width"]
    key: Float[Tensor, "head token width"]
    text: slice
    image: slice
    """Where text and image lie among the keys."""


class JointRecorder:
    """Image-to-text attention of all joint layers, image-to-image attention and output of the middle one.

    Probabilities are those of the softmax over all keys; the maps take the text's part of it, renormalised over the
    text tokens.
    """

    def __init__(self, network: nn.Module) -> None:
        self._layers = [_watch(module) for module in network.modules() if _is_joint(module)]
        blocks: Any = network.get_submodule("transformer_blocks")
        self._block = OutputRecorder(blocks[len(blocks) // 2])
        self._middle = len(blocks) // 2

    def forget(self) -> None:
        """Let go of the last pass."""
        self._block.forget()
        for layer in self._layers:
            layer.forget()

    def maps(self, row: int, size: Sequence[int]) -> Float[Tensor, "token h w"]:
        """Attention of one row's pixels to the text tokens, as shares of all attention to text."""
        resized = [resize_maps(_to_text(heads).T, size) for heads in self._heads(row)]
        return torch.stack(resized).mean(0)

    def self_map(self, row: int, size: Sequence[int]) -> Float[Tensor, "h w"]:
        """Attention that each pixel receives from the others in the middle block."""
        heads = list(self._heads(row))[self._middle]
        received = sum(part.sum(0) for part in _probabilities(heads, heads.image)) / heads.query.shape[1]
        assert isinstance(received, Tensor)
        return resize_maps(received[None], size)[0]

    def middle(self) -> Float[Tensor, "b width"]:
        """Mean over image tokens of the middle block's output."""
        return self._block.output()[1].float().mean(1)

    def _heads(self, row: int) -> list[_Heads]:
        text_tokens = next((layer.text_tokens for layer in self._layers if layer.text_tokens), 0)
        return [layer.heads(row, text_tokens) for layer in self._layers]


class _Watch:
    """An attention processor that keeps its inputs and hands the work to the one it replaces."""

    def __init__(self, module: nn.Module, processor: Any, split: Callable[..., _Heads]) -> None:
        self._module = module
        self._processor = processor
        self._split = split
        self._inputs: tuple[Tensor, Tensor | None, Any] | None = None

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> Any:
        self._inputs = hidden_states, encoder_hidden_states, image_rotary_emb
        rotary = {} if image_rotary_emb is None else {"image_rotary_emb": image_rotary_emb}
        return self._processor(attn, hidden_states, encoder_hidden_states, attention_mask, **rotary)

    def forget(self) -> None:
        self._inputs = None

    @property
    def text_tokens(self) -> int:
        """Text tokens of the last pass, where this layer is told them apart."""
        return 0 if self._inputs is None or self._inputs[1] is None else self._inputs[1].shape[1]

    def heads(self, row: int, text_tokens: int) -> _Heads:
        """Queries and keys of one row."""
        if self._inputs is None:
            raise no_pass_yet()
        hidden, encoded, rotary = self._inputs
        of_row = None if encoded is None else encoded[row : row + 1]
        return self._split(self._module, hidden[row : row + 1], of_row, rotary, text_tokens)


def _sd3_heads(module: Any, hidden: Tensor, encoded: Tensor, rotary: Any, text_tokens: int) -> _Heads:  # noqa: ARG001
    """The projections of JointAttnProcessor2_0: image tokens first."""
    query = _normed(module.norm_q, _per_head(module.to_q(hidden), module.heads))
    key = _normed(module.norm_k, _per_head(module.to_k(hidden), module.heads))
    text_key = _normed(module.norm_added_k, _per_head(module.add_k_proj(encoded), module.heads))
    pixels = key.shape[2]
    return _Heads(
        query=query[0],
        key=torch.cat([key, text_key], dim=2)[0],
        image=slice(0, pixels),
        text=slice(pixels, pixels + text_key.shape[2]),
    )


def _flux_heads(module: Any, hidden: Tensor, encoded: Tensor | None, rotary: Any, text_tokens: int) -> _Heads:
    """The projections of FluxAttnProcessor: text tokens first; single-stream layers get them in one sequence."""

    def split(states: Tensor) -> Tensor:
        return states.unflatten(-1, (-1, module.head_dim))

    query, key = module.norm_q(split(module.to_q(hidden))), module.norm_k(split(module.to_k(hidden)))
    if encoded is not None:
        query = torch.cat([module.norm_added_q(split(module.add_q_proj(encoded))), query], dim=1)
        key = torch.cat([module.norm_added_k(split(module.add_k_proj(encoded))), key], dim=1)
    query, key = (_rotated(states, rotary).transpose(1, 2)[0] for states in (query, key))
    text, image = slice(0, text_tokens), slice(text_tokens, key.shape[1])
    return _Heads(query=query[:, image], key=key, text=text, image=image)


def _to_text(heads: _Heads) -> Float[Tensor, "pixel token"]:
    text = torch.cat(list(_probabilities(heads, heads.text)))
    return text / text.sum(-1, keepdim=True)


def _probabilities(heads: _Heads, keys: slice) -> list[Float[Tensor, "pixel key"]]:
    """Softmax over all keys, mean over heads, the part of some keys; in pieces of image tokens."""
    scale = heads.query.shape[-1] ** -0.5
    pieces = heads.query.split(_QUERIES, dim=1)
    return [(piece @ heads.key.mT * scale).float().softmax(-1).mean(0)[:, keys] for piece in pieces]


def _per_head(states: Tensor, heads: int) -> Float[Tensor, "b head token width"]:
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)


def _normed(norm: nn.Module | None, states: Tensor) -> Tensor:
    return states if norm is None else norm(states)


def _rotated(states: Tensor, rotary: Any) -> Tensor:
    rotate: Any = apply_rotary_emb
    return states if rotary is None else rotate(states, rotary, sequence_dim=1)


def _is_joint(module: nn.Module) -> bool:
    """SD3.5's second attention sees the image alone; it has no projections for text."""
    return isinstance(module, FluxAttention) or (
        isinstance(module, Attention) and getattr(module, "add_k_proj", None) is not None
    )


def _watch(module: Any) -> _Watch:
    split = _flux_heads if isinstance(module, FluxAttention) else _sd3_heads
    watch: Any = _Watch(module, module.processor, split)
    module.set_processor(watch)
    return watch
