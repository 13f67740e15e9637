"""What a trained part of the embedded world is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch

from addiffusion.files import make_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingBudget:
    """How much work a training run may do; the defaults are the full recipe on two CPU cores."""

    scale: float = 1.0
    """Factor on every part's number of steps."""
    max_steps: int | None = None
    """Upper bound on every part's number of steps."""
    max_batch: int | None = None
    """Upper bound on every part's batch size."""
    max_pool: int | None = None
    """Upper bound on every pool of rendered scenes, for training and for measuring."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One report of a running part: ``metrics`` are means since the report before."""

    part: str
    step: int
    steps: int
    seconds: float
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartReport:
    """What one part did in this call; ``metrics`` hold its final quality figures."""

    part: str
    steps: int
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])


def ignore_progress(_: Progress) -> None:
    """The listener of a run nobody watches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingContext:
    """Everything a part is given."""

    out: Path
    """Weights folder under construction: ``out/pipeline``, ``out/clip``, ``out/dino`` and so on."""
    work: Path
    """Checkpoints and losses of the parts; may be deleted once all are trained."""
    seed: int
    """Root of every random stream of the training."""
    device: torch.device
    """Where the modules are trained."""
    budget: TrainingBudget = TrainingBudget()
    """Limits on steps and batches."""
    checkpoint_every: int = 500
    """Steps between checkpoints; the last step always has one."""
    log_every: int = 50
    """Steps between rows of the loss log and progress reports."""
    on_progress: Callable[[Progress], None] = ignore_progress
    """Called after each row of the loss log."""

    def steps(self, full: int) -> int:
        """``full`` steps scaled to the budget, at least one."""
        scaled = max(1, round(full * self.budget.scale))
        return min(scaled, self.budget.max_steps or scaled)

    def batch_size(self, *, cpu: int, cuda: int) -> int:
        """The batch size for this device within the budget."""
        size = cuda if self.device.type == "cuda" else cpu
        return min(size, self.budget.max_batch or size)

    def shards(self) -> int:
        """How many calls of its loss a sharded part makes per step: two on a CPU, one on a GPU, which is parallel."""
        return 1 if self.device.type == "cuda" else 2

    def pool_size(self, *, cpu: int, cuda: int | None = None) -> int:
        """How many scenes to render ahead for this device within the budget."""
        size = cuda if cuda is not None and self.device.type == "cuda" else cpu
        return min(size, self.budget.max_pool or size)

    def folder(self, part: str) -> Path:
        """The part's own folder for checkpoints and losses, made on first use."""
        path = self.work / part
        make_folder(path)
        return path


class Part(Protocol):
    """One trained piece of the embedded world."""

    @property
    def name(self) -> str:
        """Its name on the command line and its folder under ``context.work``."""
        ...

    def train(self, context: TrainingContext) -> PartReport:
        """Trains (or goes on training) the part and writes its files below ``context.out``."""
        ...
