"""A bank of the closed-form toy world, built in memory by a real rollout worker."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from addiffusion.actions import Action
from addiffusion.bank.archive import Bank, open_bank, shard_path, write_shard
from addiffusion.bank.plan import BankPlan, bank_identity
from addiffusion.bank.trajectory import Trajectory, trajectory_of
from addiffusion.config import Config
from addiffusion.observation.layout import clip_layout
from addiffusion.records import METRIC_NAMES, RecordAllStops
from learner.settings import drawn_setting
from tests.fakes import ToyScoring
from tests.rollout_workers.toy_run import make_config, make_tickets, make_worker

ACTIONS = ("continue", "stop")
RANGES: dict[str, Any] = {
    "backbone": {"guidance_scale_range": (0.0, 3.0)},
    "sampler": {"num_steps": 8, "warmup_steps": 2, "finish_steps": 2, "num_steps_range": (5, 12)},
}
"""A setting for each image: some of them are guided."""


def toy_bank_config(**sections: Any) -> Config:
    """Paid by `paired`, without refine."""
    policy = {"hidden": (16,), "actions": ACTIONS}
    return make_config(**{"reward": {"preset": "paired"}, "policy": policy, **sections})


def toy_plan(config: Config, *, count: int, stride: int = 1) -> BankPlan:
    return BankPlan(
        identity=bank_identity(config),
        layout=clip_layout(clip_width=ToyScoring.clip_width, timestep_width=config.observation.timestep_width),
        split="train",
        count=count,
        stride=stride,
        metrics=METRIC_NAMES,
        shard_size=4,
    )


def toy_trajectories(config: Config, *, count: int = 6, stride: int = 1) -> list[Trajectory]:
    """By settings of their own, where the configuration has ranges."""
    record_stops = RecordAllStops(stride=stride, metrics=METRIC_NAMES)
    tickets = make_tickets(count, forced=Action.CONTINUE, record_stops=record_stops)
    collected = make_worker(config).collect([replace(one, setting=drawn_setting(config, one.seed)) for one in tickets])
    assert not collected.failed
    return [trajectory_of(episode) for episode in collected.episodes]


def toy_bank(folder: Path, config: Config, *, count: int = 6, stride: int = 1) -> Bank:
    """A bank on disk, read back."""
    plan = toy_plan(config, count=count, stride=stride)
    plan.write(folder)
    trajectories = toy_trajectories(config, count=count, stride=stride)
    for number in range(-(-count // plan.shard_size)):
        part = trajectories[number * plan.shard_size : (number + 1) * plan.shard_size]
        write_shard(shard_path(folder, number), part, plan)
    return open_bank(folder, config)
