"""What a results page says of its making."""

from __future__ import annotations

import os
import platform

import torch


def machine() -> str:
    """Processor or GPU, in words that name no host."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f"{os.cpu_count()} cores ({platform.machine()})"


def result_command(policy: str, *, limit: int, seeds: int) -> str:
    """The command that makes the page again."""
    return f"addiffusion results --policy {policy} --limit {limit} --seeds {seeds}"
