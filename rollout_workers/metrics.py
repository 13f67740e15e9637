"""The numbers a rollout worker reports while it works, each declared once."""

from __future__ import annotations

from typing import Final

from addiffusion.metrics import Metric

EPISODES: Final = Metric(
    name="addiffusion_rollout_episodes",
    kind="counter",
    unit="episodes",
    description="Episodes finished, references and comparisons included; its rate is the throughput.",
)
FAILED: Final = Metric(
    name="addiffusion_rollout_failed",
    kind="counter",
    unit="episodes",
    description="Tickets that came back without an episode.",
)
NFE: Final = Metric(
    name="addiffusion_rollout_nfe",
    kind="counter",
    unit="steps",
    description="Scheduler steps spent on finished episodes.",
)
NETWORK_EVALS: Final = Metric(
    name="addiffusion_rollout_network_evals",
    kind="counter",
    unit="passes",
    description="Passes through the denoiser spent on finished episodes; a guided step takes two.",
)
STAGE_TIME: Final = Metric(
    name="addiffusion_rollout_stage_seconds",
    kind="counter",
    unit="seconds",
    description="Time spent in one stage of the rollout.",
    tags=("stage",),
)
WEIGHT_VERSION: Final = Metric(
    name="addiffusion_rollout_weight_version",
    kind="gauge",
    unit="version",
    description="Version of the policy weights a worker acts with.",
)
ALL: Final = (EPISODES, FAILED, NFE, NETWORK_EVALS, STAGE_TIME, WEIGHT_VERSION)
