"""How a batch of decisions is cut into gradient steps."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor


def minibatch_rows(
    row_count: int, *, epochs: int, minibatch_size: int, generator: torch.Generator
) -> Iterator[Int[Tensor, " m"]]:
    """Row indices of each gradient step: in every epoch each row exactly once, in a fresh order.

    RLlib's cyclic iterator fills the last minibatch of an epoch from the next one and repeats the rows of a batch
    that is smaller than a minibatch; here the minibatches of an epoch differ by at most one row instead.
    """
    step_count = max(1, round(row_count / minibatch_size))
    for _ in range(epochs):
        yield from torch.randperm(row_count, generator=generator).tensor_split(step_count)
