"""Every random stream of the project, derived from names instead of from call order."""

from __future__ import annotations

import hashlib

import torch


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that is a pure function of ``parts``, e.g. ``(run_seed, ticket_id, "action")``."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator for one purpose. CPU, so that a stream is the same on every device."""
    return torch.Generator().manual_seed(derive_seed(*parts))
