"""What a network attended to, computed only for the rows somebody asks for.

Recorders remember what attention layers of the last pass worked with; the pass itself is left as it was. Remembering
is keeping a reference, no copy and no arithmetic, so the network's output stays bitwise the same; the price is that
these activations stay in memory as long as the record of the pass. The softmax is computed afterwards, for those rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Any, Protocol, runtime_checkable

import torch
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_map

from addiffusion.backbones.base import PassRecord
from addiffusion.errors import ContractError
from addiffusion.torch_typed import named_modules

_CROSS_ATTENTION, _SELF_ATTENTION = "attn2", "attn1"
_HELD = 2**24
"""Most probabilities that are computed at once."""


@runtime_checkable
class AttentionRecorder(Protocol):
    """Looks into a denoiser without changing it."""

    def begin(self) -> None:
        """Let go of the last pass before the next one, so that two are never held without need."""
        ...

    def own(self) -> None:
        """Copy what was seen, where the memory it lies in will be written over."""
        ...

    def close(self) -> None:
        """Leave the network as it was found; no pass is seen any more."""
        ...

    def record(self, size: Sequence[int]) -> PassRecord:
        """The last pass; its maps will have this size.

        Raises:
            ContractError: there was no pass yet.
        """
        ...


class PassStore:
    """Where watched layers of one network put what they saw: a new dictionary for each pass."""

    def __init__(self) -> None:
        self.seen: dict[object, Any] = {}
        self._undone: list[Callable[[], None]] = []

    def begin(self) -> None:
        """A new pass: what was seen before belongs to whoever kept it."""
        self.seen = {}

    def own(self) -> None:
        """Copy what was seen."""
        self.seen = {key: tree_map(_copied, value) for key, value in self.seen.items()}

    def finished(self) -> dict[object, Any]:
        """What was seen in the last pass.

        Raises:
            ContractError: there was no pass yet.
        """
        if not self.seen:
            raise ContractError("There are no attention maps or features before the first pass through the network.")
        return self.seen

    def watch_output(self, block: nn.Module) -> None:
        """See what a block puts out, under the block's own name."""
        watch = block.register_forward_hook(lambda block, _inputs, output: self.seen.__setitem__(block, output))
        self.at_close(watch.remove)

    def at_close(self, undo: Callable[[], None]) -> None:
        """Remember how something that was done to the network is undone."""
        self._undone.append(undo)

    def close(self) -> None:
        """Undo all that was done to the network, and let go of the last pass."""
        while self._undone:
            self._undone.pop()()
        self.seen = {}


class UNetRecorder:
    """Watches queries and keys of cross-attention in all layers, of self-attention in the middle, and its output."""

    def __init__(self, network: nn.Module) -> None:
        self._store = PassStore()
        self._middle = network.get_submodule("mid_block")
        self._store.watch_output(self._middle)
        self._cross, self._self = _layers(network, _CROSS_ATTENTION), _layers(self._middle, _SELF_ATTENTION)
        for layer in (*self._cross, *self._self):
            assert layer.to_k is not None
            self._store.watch_output(layer.to_q)
            self._store.watch_output(layer.to_k)

    def begin(self) -> None:
        """Let go of the last pass."""
        self._store.begin()

    def own(self) -> None:
        """Copy what was seen."""
        self._store.own()

    def close(self) -> None:
        """Leave the network as it was found."""
        self._store.close()

    def record(self, size: Sequence[int]) -> UNetPass:
        """The last pass."""
        seen = self._store.finished()
        return UNetPass(seen, cross=self._cross, own=self._self, middle=seen[self._middle], size=size)


class UNetPass:
    """One pass through a UNet."""

    def __init__(
        self,
        seen: dict[object, Any],
        *,
        cross: Sequence[Attention],
        own: Sequence[Attention],
        middle: Float[Tensor, "b c h w"],
        size: Sequence[int],
    ) -> None:
        """What layers put out.

        Args:
            seen: output of each watched projection, (b, pixel or token, width).
            cross: layers whose attention to the text is asked for.
            own: layers whose attention among pixels is asked for.
            middle: (b, c, h, w) output of the middle block.
            size: height and width of the maps.
        """
        self._seen, self._cross, self._own, self._middle, self._size = seen, cross, own, middle, tuple(size)

    def attention_maps(self, rows: Sequence[int]) -> Float[Tensor, "row token h w"]:
        """Cross-attention probabilities."""
        return self._mean(self._cross, rows, lambda totals: resize_maps(totals.mT, self._size))

    def self_attention_maps(self, rows: Sequence[int]) -> Float[Tensor, "row h w"]:
        """Attention that each pixel of the middle block receives, mean over queries (arXiv:2210.00939 Eq. 6)."""
        return resize_maps(self._mean(self._own, rows, lambda totals: totals.mean(1)), self._size)

    def middle_features(self) -> Float[Tensor, "b width"]:
        """Mean over pixels of the middle block's output."""
        return self._middle.float().mean((2, 3))

    def _mean(self, layers: Sequence[Attention], rows: Sequence[int], form: Callable[[Tensor], Tensor]) -> Tensor:
        """Mean over layers and their heads of some rows' probabilities, each brought to one form."""
        parts = [form(self._totals(group, rows)).div_(group[0].heads * len(layers)) for group in self._alike(layers)]
        return reduce(torch.add, parts)

    def _alike(self, layers: Sequence[Attention]) -> Iterator[Sequence[Attention]]:
        """Layers whose probabilities have one shape, as many together as memory should hold at once."""
        alike: dict[tuple[int, torch.Size, int], list[Attention]] = {}
        for layer in layers:
            query, key = self._seen[layer.to_q].shape, self._seen[layer.to_k].shape
            alike.setdefault((layer.heads, query, key[1]), []).append(layer)
        for group in alike.values():
            count = max(1, _HELD // self._probabilities(group[:1]))
            yield from (group[start : start + count] for start in range(0, len(group), count))

    def _totals(self, layers: Sequence[Attention], rows: Sequence[int]) -> Float[Tensor, "row pixel key"]:
        """Sum over layers of one shape, and over their heads, of some rows' softmax over keys, float32."""
        together = max(1, _HELD // self._probabilities(layers))
        parts = [rows[start : start + together] for start in range(0, len(rows), together)]
        totals = [self._total(layers, part) for part in parts]
        return totals[0] if len(totals) == 1 else torch.cat(totals)

    def _total(self, layers: Sequence[Attention], rows: Sequence[int]) -> Float[Tensor, "row pixel key"]:
        heads = layers[0].heads * len(layers) * len(rows)
        query, key = (
            torch.unflatten(
                torch.cat([self._seen[projection][row] for row in rows for projection in projections], dim=-1).float(),
                -1,
                (heads, -1),
            )
            for projections in zip(*((layer.to_q, layer.to_k) for layer in layers), strict=True)
        )
        query, key = query.transpose(0, 1), key.permute(1, 2, 0)
        scores = torch.baddbmm(query.new_empty(1, 1, 1), query, key, beta=0, alpha=layers[0].scale)
        return torch.unflatten(scores.softmax(-1), 0, (len(rows), -1)).sum(1)

    def _probabilities(self, layers: Sequence[Attention]) -> int:
        """How many a row has in layers of one shape."""
        pixels, keys = (self._seen[projection].shape[1] for projection in (layers[0].to_q, layers[0].to_k))
        return layers[0].heads * len(layers) * pixels * keys


def resize_maps(maps: Float[Tensor, "row *map pixel"], size: Sequence[int]) -> Float[Tensor, "row *map h w"]:
    """Maps over the flattened pixels of a coarser grid than ``size``, or of its own, brought to ``size``."""
    *before, pixels = maps.shape
    grids = ((math.ceil(size[0] / factor), math.ceil(size[1] / factor)) for factor in range(1, max(size) + 1))
    grid = next(one for one in grids if math.prod(one) == pixels)
    flat = maps.reshape(before[0], -1, *grid)
    resized = functional.interpolate(flat, size=tuple(size), mode="bilinear", align_corners=False)
    return resized.view(*before, *size)


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _layers(network: nn.Module, name: str) -> list[Attention]:
    return [module for path, module in named_modules(network) if path.endswith(name) and isinstance(module, Attention)]
