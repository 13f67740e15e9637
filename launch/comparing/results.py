"""What a results page says of its making."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Sequence

import torch

from launch.comparing.orders import BEST_OF, ParetoOrder, ResultsOrder


def machine() -> str:
    """Processor or GPU, in words that name no host."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f"{os.cpu_count()} cores ({platform.machine()})"


def result_command(order: ResultsOrder, overrides: Sequence[str] = ()) -> str:
    """The command that makes the page again."""
    parts = [f"addiffusion results --policy {order.policy} --limit {order.limit} --seeds {order.repeats}"]
    parts += [f"--sampler {name}" for name in order.samplers or ()]
    parts += [] if order.best_of == BEST_OF else [f"--best-of {order.best_of}"]
    parts += [] if order.literature else ["--no-literature"]
    return " ".join([*parts, *map(shlex.quote, overrides)])


def pareto_command(order: ParetoOrder, overrides: Sequence[str] = ()) -> str:
    """The command that makes the section about hand-made opponents again."""
    parts = [f"addiffusion pareto --policy {order.policy} --limit {order.limit}"]
    parts += [f"--handmade {name}" for name in order.handmade]
    parts += [f"--sampler {name}" for name in order.samplers or ()] if order.samplers != ParetoOrder().samplers else []
    return " ".join([*parts, *map(shlex.quote, overrides)])
