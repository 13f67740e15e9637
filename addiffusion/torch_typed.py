"""Functions of torch to which its own annotations give no whole type, with one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_torch: Any = torch  # leaves open an argument or the result of each of these

LinAlgError: type[RuntimeError] = _torch.linalg.LinAlgError
from_numpy: Callable[[NDArray[Any]], Tensor] = _torch.from_numpy
vector_norm: Callable[..., Tensor] = _torch.linalg.vector_norm
manual_seed: Callable[[int], object] = _torch.manual_seed
fork_rng: Callable[[], AbstractContextManager[object]] = _torch.random.fork_rng


def named_modules(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module of ``network``, itself first, by its dotted path."""
    untyped: Any = network
    return untyped.named_modules()
