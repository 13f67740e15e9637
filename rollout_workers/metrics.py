"""The numbers a rollout worker reports while it works, each declared once, and the clock of its stages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal, TypeAlias, get_args

from addiffusion.metrics import Metric

Stage: TypeAlias = Literal["network", "decode", "score", "wait", "observe", "policy", "commit"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""Keys of ``Collected.stage_s``. ``score`` runs beside the others; what the loop waits for it is in ``wait``."""

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


class Stopwatch:
    """Seconds per stage. On a GPU, ``network`` only queues work; ``decode`` then waits for it."""

    def __init__(self) -> None:
        self.stage_s: dict[str, float] = dict.fromkeys(STAGES, 0.0)

    def take(self) -> dict[str, float]:
        """The seconds since the last call."""
        taken = self.stage_s
        self.stage_s = dict.fromkeys(STAGES, 0.0)
        return taken

    @contextmanager
    def __call__(self, stage: Stage) -> Iterator[None]:
        """Add the time spent inside the block to ``stage``."""
        started_s = time.perf_counter()
        try:
            yield
        finally:
            self.stage_s[stage] += time.perf_counter() - started_s
