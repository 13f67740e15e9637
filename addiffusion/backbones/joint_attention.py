"""Attention of transformers that mix image and text tokens in one sequence: SD3 and Flux."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_flux import FluxAttention
from jaxtyping import Float
from torch import Tensor, nn

from addiffusion.backbones.attention import PassStore, resize_maps

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
    """Watches all joint attention layers and the output of the middle block of a transformer."""

    def __init__(self, network: nn.Module) -> None:
        self._store = PassStore()
        self._layers = [_watch(module, self._store) for module in network.modules() if _is_joint(module)]
        blocks: Any = network.get_submodule("transformer_blocks")
        self._middle = len(blocks) // 2
        self._block = blocks[self._middle]
        self._store.watch_output(self._block)

    def begin(self) -> None:
        """Let go of the last pass."""
        self._store.begin()

    def own(self) -> None:
        """Copy what was seen."""
        self._store.own()

    def close(self) -> None:
        """Leave the network as it was found."""
        self._store.close()

    def record(self, size: Sequence[int]) -> JointPass:
        """The last pass."""
        seen = self._store.finished()
        return JointPass(seen, self._layers, middle=self._middle, tokens=seen[self._block][1], size=size)


class JointPass:
    """One pass through a transformer.

    Probabilities are those of the softmax over all keys; the maps take the text's part of it, renormalised over the
    text tokens.
    """

    def __init__(
        self,
        seen: dict[object, Any],
        layers: Sequence[nn.Module],
        *,
        middle: int,
        tokens: Float[Tensor, "b token width"],
        size: Sequence[int],
    ) -> None:
        """What layers were given.

        Args:
            seen: image states, text states and rotary embedding of each watched layer.
            layers: those of joint attention, in their order.
            middle: index among ``layers`` of the middle one.
            tokens: (b, token, width) image tokens that the middle block puts out.
            size: height and width of the maps.
        """
        self._seen, self._layers, self._middle, self._tokens, self._size = seen, layers, middle, tokens, tuple(size)
        self._text_tokens: int = next(seen[layer][1].shape[1] for layer in layers if seen[layer][1] is not None)

    def attention_maps(self, rows: Sequence[int]) -> Float[Tensor, "row token h w"]:
        """Attention of pixels to the text tokens, as shares of all attention to text."""
        return torch.stack([self._shares(row) for row in rows])

    def self_attention_maps(self, rows: Sequence[int]) -> Float[Tensor, "row h w"]:
        """Attention that each pixel receives from the others in the middle block."""
        return resize_maps(torch.stack([self._received(row) for row in rows]), self._size)

    def middle_features(self) -> Float[Tensor, "b width"]:
        """Mean over image tokens of the middle block's output."""
        return self._tokens.float().mean(1)

    def _shares(self, row: int) -> Float[Tensor, "token h w"]:
        layers = torch.stack([_to_text(self._heads(layer, row)).T for layer in self._layers])
        return resize_maps(layers, self._size).mean(0)

    def _received(self, row: int) -> Float[Tensor, " pixel"]:
        heads = self._heads(self._layers[self._middle], row)
        parts = [part.sum(0) for part in _probabilities(heads, heads.image)]
        return torch.stack(parts).sum(0) / heads.query.shape[1]

    def _heads(self, layer: nn.Module, row: int) -> _Heads:
        hidden, encoded, rotary = self._seen[layer]
        of_row = None if encoded is None else encoded[row : row + 1]
        split = _flux_heads if isinstance(layer, FluxAttention) else _sd3_heads
        return split(layer, hidden[row : row + 1], of_row, rotary, self._text_tokens)


class _Watch:
    """An attention processor that keeps its inputs and hands the work to the one it replaces."""

    def __init__(self, processor: Any, store: PassStore) -> None:
        self._processor = processor
        self._store = store

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Float[Tensor, "b pixel width"],
        encoder_hidden_states: Float[Tensor, "b token width"] | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> Any:
        self._store.seen[attn] = hidden_states, encoder_hidden_states, image_rotary_emb
        rotary = {} if image_rotary_emb is None else {"image_rotary_emb": image_rotary_emb}
        return self._processor(attn, hidden_states, encoder_hidden_states, attention_mask, **rotary)


def _sd3_heads(
    module: Any,
    hidden: Float[Tensor, "1 pixel width"],
    encoded: Float[Tensor, "1 token width"] | None,
    rotary: Any,  # noqa: ARG001 - as of _flux_heads
    text_tokens: int,  # noqa: ARG001
) -> _Heads:
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


def _flux_heads(
    module: Any,
    hidden: Float[Tensor, "1 pixel width"],
    encoded: Float[Tensor, "1 token width"] | None,
    rotary: Any,
    text_tokens: int,
) -> _Heads:
    """The projections of FluxAttnProcessor: text tokens first; single-stream layers get them in one sequence."""

    def split(states: Float[Tensor, "1 token inner"]) -> Float[Tensor, "1 token head width"]:
        return torch.unflatten(states, -1, (-1, module.head_dim))

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
    pieces = torch.split(heads.query, _QUERIES, dim=1)
    return [(piece @ heads.key.mT * scale).float().softmax(-1).mean(0)[:, keys] for piece in pieces]


def _per_head(states: Float[Tensor, "b token inner"], heads: int) -> Float[Tensor, "b head token width"]:
    return torch.unflatten(states, -1, (heads, -1)).transpose(1, 2)


def _normed(norm: nn.Module | None, states: Float[Tensor, " *dims"]) -> Float[Tensor, " *dims"]:
    return states if norm is None else norm(states)


def _rotated(states: Float[Tensor, "1 token head width"], rotary: Any) -> Float[Tensor, "1 token head width"]:
    rotate: Any = apply_rotary_emb
    return states if rotary is None else rotate(states, rotary, sequence_dim=1)


def _is_joint(module: nn.Module) -> bool:
    """SD3.5's second attention sees the image alone; it has no projections for text."""
    return isinstance(module, FluxAttention) or (
        isinstance(module, Attention) and getattr(module, "add_k_proj", None) is not None
    )


def _watch(module: Any, store: PassStore) -> nn.Module:
    own = module.processor
    module.set_processor(_Watch(own, store))
    store.at_close(lambda: module.set_processor(own))
    return module
