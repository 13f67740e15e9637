"""`addiffusion bench speed`: how near images come to the `speed=` that was asked for, on held-out prompts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from rich.console import Console

from addiffusion import Policy
from addiffusion.errors import UsageError
from addiffusion.policy_files import read_policy
from addiffusion.prompts import load_prompts
from addiffusion.seeds import derive_seed
from addiffusion.threads import torch_threads
from evaluation.significance.intervals import Interval, bootstrap_interval
from evaluation.tables import Table
from launch.bench.orders import SpeedOrder
from launch.runtime.console import Stage
from launch.runtime.pipeline import pipeline_of


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedRow:
    """Images of one speed."""

    steps: int
    asked: float
    """Speed: the full run's cost over that of an image, on average."""
    got: float
    share: Interval
    """95 % of the mean cost over the full run's."""

    @property
    def off(self) -> float:
        """Relative error of the speed."""
        return self.got / self.asked - 1


def bench_speed(order: SpeedOrder, console: Console) -> list[SpeedRow]:
    """Draw the same held-out prompts at each speed.

    Raises:
        UsageError: the policy can't be read, or its card has no measured costs.
    """
    policy = Policy.of(read_policy(order.policy))
    config = policy.trained_with
    if policy.card is None or not policy.card.curve:
        raise UsageError(
            f"The policy card of {order.policy} has no measured costs: write one by `addiffusion export`.",
            policy=order.policy,
        )
    with Stage(console, "loading the model"):
        pipe = pipeline_of(policy)
        prompts = load_prompts(config.prompts, split="test", count=order.limit, seed=config.run.seed)
    rows: list[SpeedRow] = []
    points = list(product(order.steps, order.speeds))
    with Stage(console, "drawing at each speed", len(points), headline="") as shown, torch_threads(1):
        for steps, speed in points:
            out = pipe(
                [prompt.text for prompt in prompts],
                generator=[torch.Generator().manual_seed(derive_seed("speed", one.prompt_id)) for one in prompts],
                speed=speed,
                num_inference_steps=steps,
            )
            shares = np.asarray(out.cost, np.float64) / steps
            rows.append(
                SpeedRow(steps=steps, asked=speed, got=1 / float(shares.mean()), share=bootstrap_interval(shares))
            )
            shown.advance()
    return rows


def table_of(rows: list[SpeedRow]) -> Table:
    """The rows for people."""
    table = Table(title="speeds of held-out prompts", box=None, header_style="bold", title_justify="left")
    for name in ("steps", "asked", "got", "95 % interval", "off"):
        table.add_column(name, justify="right")
    for row in rows:
        between = f"{1 / row.share.high:.2f} to {1 / row.share.low:.2f}"
        table.add_row(str(row.steps), f"{row.asked:g}", f"{row.got:.2f}", between, f"{row.off:+.0%}")
    return table


def to_json(rows: list[SpeedRow]) -> list[dict[str, float]]:
    """The rows for programs."""
    return [{"steps": row.steps, "asked": row.asked, "got": row.got, "off": row.off} for row in rows]
