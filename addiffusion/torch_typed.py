"""Functions of torch to which its own annotations give no whole type, with one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

# Each ignored line reads what torch leaves open: a name missing in its stubs, an argument or a result without a type.
LinAlgError: type[RuntimeError] = torch.linalg.LinAlgError  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
from_numpy: Callable[[NDArray[Any]], Tensor] = torch.from_numpy  # pyright: ignore[reportUnknownMemberType]
manual_seed: Callable[[int], object] = torch.manual_seed  # pyright: ignore[reportUnknownMemberType]
fork_rng: Callable[[], AbstractContextManager[object]] = torch.random.fork_rng  # pyright: ignore[reportUnknownMemberType]


def named_modules(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module of ``network``, itself first, by its dotted path."""
    return network.named_modules()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
