"""Runs around toy models, and rollouts that interrupt them."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console

from addiffusion.checkpoint_files import latest_checkpoint
from addiffusion.config import Config, SamplerSection
from addiffusion.records import Ticket
from addiffusion.rollouts import Collected, Rollouts
from launch.runtime.components import Components
from launch.training.preflight import Plan
from launch.training.train import Outcome, run
from learner.checkpoint import load_checkpoint
from tests.launch.runtime.toy_components import toy_components


def train(plan: Plan, roles: object = toy_components) -> tuple[Outcome, str]:
    stream = io.StringIO()
    outcome = run(plan, console=Console(file=stream, width=130), roles=roles)  # pyright: ignore[reportArgumentType]
    return outcome, stream.getvalue()


def final_weights(path: Path) -> dict[str, torch.Tensor]:
    checkpoint = load_checkpoint(latest_checkpoint(path))
    assert checkpoint.iteration == 3
    return checkpoint.learner.policy


class SignalAfter:
    """Rollouts that send this process SIGINT during their ``count``-th call."""

    def __init__(self, rollouts: Rollouts, count: int) -> None:
        self.rollouts = rollouts
        self.left = count

    def set_weights(self, weights: object, version: int) -> None:
        self.rollouts.set_weights(weights, version)

    def collect(self, tickets: Sequence[Ticket], *, sampler: SamplerSection | None = None) -> Collected:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return self.rollouts.collect(tickets, sampler=sampler)

    def advance(self, tickets: Sequence[Ticket]) -> Collected:
        return self.rollouts.advance(tickets)


def interrupted_components(count: int, kind: type[SignalAfter] = SignalAfter) -> object:
    @contextmanager
    def components(config: Config) -> Iterator[Components]:
        with toy_components(config) as toys:
            yield Components(rollouts=kind(toys.rollouts, count), scoring=toys.scoring, learner=toys.learner)

    return components
