"""Torch's thread count is part of what makes a result bitwise reproducible: sums are split by it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch


@contextmanager
def torch_threads(count: int = 1) -> Generator[None, None, None]:
    """Run the body with ``count`` torch threads and restore the caller's count afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
