"""Tickets, policies and comparisons that the collector tests share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from addiffusion.actions import Action
from addiffusion.config import Config
from addiffusion.records import Episode, Ticket
from rollout_workers.batch import PolicyFunction
from rollout_workers.collector import Collector
from tests.fakes import ToyBackbone, ToyScoring, make_prompt

STEPS, WARMUP, FINISH, K = 8, 2, 2, 2
SURE = 50.0


def make_config(
    *, slots: int = 3, rows: int | None = None, finish_steps: int = FINISH, preset: str = "phase1", sees: str = "clip"
) -> Config:
    return Config.model_validate(
        {
            "rollout": {"slots": slots, "rows": rows or 2 * slots},
            "sampler": {"num_steps": STEPS, "warmup_steps": WARMUP, "finish_steps": finish_steps},
            "refine": {"k": K},
            "reward": {"preset": preset},
            "observation": {"timestep_width": 8, "kind": sees},
        }
    )


def make_tickets(count: int, **changes: object) -> list[Ticket]:
    base = [
        Ticket(ticket_id=index, prompt=make_prompt(index % 3), seed=100 + index, action_seed=200 + index, c_nfe=0.01)
        for index in range(count)
    ]
    return [replace(ticket, **changes) for ticket in base]


def make_collector(config: Config) -> Collector:
    return Collector(backbone=ToyBackbone(), scoring=ToyScoring(), config=config)


def _hashed(phi: NDArray[np.float32]) -> NDArray[np.float32]:
    """A policy whose rows can't depend on each other and which takes all three actions."""
    return np.stack([[0.4 + np.sin(31 * row.sum()), np.sin(17 * row.sum()) - 1, np.sin(7 * row.sum())] for row in phi])


def always(action: Action) -> PolicyFunction:
    def act(phi: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = np.zeros((len(phi), 3), np.float32)
        logits[:, action] = SURE
        return logits

    return act


def refine_at_last(phi: NDArray[np.float32]) -> NDArray[np.float32]:
    """Continue until the last schedule point (step ratio above 1 - 1/N), then refine."""
    last = phi[:, -4] > (STEPS - 1.5) / STEPS
    return np.where(last[:, None], [0, 0, SURE], [SURE, 0, 0]).astype(np.float32)


def hashed_policy(phi: NDArray[np.float32]) -> NDArray[np.float32]:
    return _hashed(phi).astype(np.float32)


def run_tickets(config: Config, tickets: Sequence[Ticket], act: PolicyFunction = hashed_policy) -> tuple[Episode, ...]:
    collected = make_collector(config).collect(tickets, act, weight_version=1)
    assert collected.failed == ()
    return collected.episodes


def _arrays(episode: Episode) -> Mapping[str, object]:
    skipped = {"ticket", "seconds", "frames"}
    return {field.name: getattr(episode, field.name) for field in fields(Episode) if field.name not in skipped}


def assert_same(left: Sequence[Episode], right: Sequence[Episode]) -> None:
    assert [episode.ticket.ticket_id for episode in left] == [episode.ticket.ticket_id for episode in right]
    for mine, other in zip(left, right, strict=True):
        for name, value in _arrays(mine).items():
            np.testing.assert_array_equal(value, getattr(other, name), err_msg=name, strict=True)


def refuse_to_act(phi: NDArray[np.float32]) -> NDArray[np.float32]:
    raise AssertionError("a forced episode must not ask the policy")
