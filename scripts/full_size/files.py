"""Files of random tensors, written piece by piece: a file of many gigabytes takes a few megabytes of memory."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from addiffusion.files import whole_file, write_text

Shapes = Mapping[str, Tensor]
"""Tensors without content (on torch's device `meta`) by name: shape and type alone count."""

_PERIOD: Final = 1_048_573
"""Random numbers that are repeated: a prime, so that no two rows of a matrix are alike."""
_SAFE: Final = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}
_LOGIT_SCALE: Final = math.log(100)
_EMBEDDING_STD: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFile:
    """A small file."""

    path: Path
    """Below the folder of all models."""
    content: str

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.content.encode())

    def write(self, root: Path, _advance: Callable[[int], None]) -> None:
        """Write it below ``root``."""
        write_text(root / self.path, self.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetensorsFile:
    """One shard, or all weights, of a model."""

    path: Path
    tensors: Shapes

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self._header()) + sum(map(_bytes_of, self.tensors.values()))

    def write(self, root: Path, advance: Callable[[int], None]) -> None:
        """Write it below ``root``; ``advance`` hears of the bytes written."""
        noise = _noise()
        with whole_file(root / self.path) as draft, draft.open("wb") as file:
            file.write(self._header())
            for name, tensor in self.tensors.items():
                for piece in _pieces(noise, name, tensor):
                    file.write(memoryview(piece.view(torch.uint8).numpy()))
                    advance(piece.numel() * piece.element_size())

    def _header(self) -> bytes:
        """Length and JSON, as the format wants them; the library itself takes only what is whole in memory."""
        tree: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name, tensor in self.tensors.items():
            start, end = end, end + _bytes_of(tensor)
            tree[name] = {"dtype": _SAFE[tensor.dtype], "shape": [*tensor.shape], "data_offsets": [start, end]}
        text = json.dumps(tree).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchFile:
    """A checkpoint as ``torch.save`` writes it."""

    path: Path
    tensors: Shapes
    wrapped: bool = False
    """Under the key ``state_dict``."""

    @property
    def size(self) -> int:
        """Bytes, but for the few kilobytes of the archive itself."""
        return sum(map(_bytes_of, self.tensors.values()))

    def write(self, root: Path, advance: Callable[[int], None]) -> None:
        """Write it below ``root``; the whole checkpoint is in memory meanwhile."""
        noise = _noise()
        filled = {
            name: torch.cat([*_pieces(noise, name, tensor)]).reshape(tensor.shape)
            for name, tensor in self.tensors.items()
        }
        with whole_file(root / self.path) as draft:
            torch.save({"state_dict": filled} if self.wrapped else filled, draft)
        advance(self.size)


File = TextFile | SafetensorsFile | TorchFile


def is_there(file: File, root: Path) -> bool:
    """Whether the file was finished before: what is half written has another name."""
    path = root / file.path
    if not path.is_file():
        return False
    size = path.stat().st_size
    return size >= file.size if isinstance(file, TorchFile) else size == file.size


@cache
def _noise() -> Tensor:
    return torch.randn(_PERIOD, generator=torch.Generator().manual_seed(0))


def _pieces(noise: Tensor, name: str, tensor: Tensor) -> Iterator[Tensor]:
    """The tensor's values, flat, in pieces of one period."""
    count = tensor.numel()
    if not tensor.is_floating_point():
        yield torch.arange(count, dtype=tensor.dtype)
        return
    mean, std = _spread(name, tensor)
    places = (torch.arange(min(count, _PERIOD)) - zlib.crc32(name.encode())) % _PERIOD  # a roll, of what is needed
    period = (mean + std * noise[places]).to(tensor.dtype)
    for start in range(0, count, _PERIOD):
        yield period[: count - start]


def _spread(name: str, tensor: Tensor) -> tuple[float, float]:
    """Mean and standard deviation by which signals keep their size: norms scale by 1, matrices by their inputs."""
    if tensor.ndim == 0:
        return _LOGIT_SCALE, 0.0
    if tensor.ndim == 1:
        if name.endswith("class_embedding"):
            return 0.0, _EMBEDDING_STD
        return float(name.endswith(("weight", "gamma"))), 0.0
    if "embedding" in name or "relative_attention_bias" in name:
        return 0.0, _EMBEDDING_STD
    return 0.0, math.prod(tensor.shape[1:]) ** -0.5


def _bytes_of(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
