"""A whole rollout worker on the closed-form toy model, small enough for every test."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from torch import Tensor

from addiffusion.config import Config
from addiffusion.observation.layout import clip_layout
from addiffusion.policy import PolicyNetwork
from addiffusion.records import Ticket
from rollout_workers.worker import Worker
from tests.fakes import ToyBackbone, ToyScoring, make_prompt

HIDDEN = (16,)


def make_config(**sections: Any) -> Config:
    return Config.model_validate(
        {
            "rollout": {"slots": 4, "workers": 2, "cpus_per_worker": 0.5, "timeout_s": 60, "max_reissues": 2},
            "sampler": {"num_steps": 8, "warmup_steps": 2, "finish_steps": 2},
            "reward": {"preset": "phase1"},
            "observation": {"timestep_width": 8},
            "policy": {"hidden": HIDDEN},
            "ppo": {"batch_size": 64, "minibatch_size": 64, "iterations": 4},
            **sections,
        }
    )


def phi_width(config: Config) -> int:
    return clip_layout(clip_width=ToyScoring.clip_width, timestep_width=config.observation.timestep_width).width


def make_worker(config: Config) -> Worker:
    policy = PolicyNetwork(phi_width(config), config.policy.hidden, actions=config.policy.actions)
    return Worker(config, policy=policy, backbone=ToyBackbone, scoring=ToyScoring)


def make_tickets(count: int, **changes: Any) -> list[Ticket]:
    return [
        Ticket(ticket_id=i, prompt=make_prompt(i % 3), seed=i, action_seed=50 + i, c_nfe=0.01, **changes)
        for i in range(count)
    ]


class MortalBackbone(ToyBackbone):
    """Kills its process in the middle of the first rollout of whoever is first to make the file ``marker``."""

    def __init__(self, marker: Path) -> None:
        super().__init__()
        self._marker = marker

    def denoise(self, z: Tensor, t: Tensor, hidden: Tensor) -> Tensor:
        if self.denoise_calls == 10 and not self._marker.exists():
            self._marker.touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().denoise(z, t, hidden)
