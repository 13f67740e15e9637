"""Metrics of a reward service, each declared once."""

from __future__ import annotations

from typing import Final

from addiffusion.metrics import Metric

_MILLISECONDS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 6e4)
_IMAGES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)

QUEUE_DEPTH: Final = Metric(
    name="addiffusion_reward_queue_images",
    kind="gauge",
    unit="images",
    description="Images that wait to be scored.",
)
BATCH_SIZE: Final = Metric(
    name="addiffusion_reward_batch_images",
    kind="histogram",
    unit="images",
    description="Images of one pass over the scorers, padding not counted.",
    boundaries=_IMAGES,
)
WAIT: Final = Metric(
    name="addiffusion_reward_wait_ms",
    kind="histogram",
    unit="milliseconds",
    description="Wait of the oldest request of a pass.",
    boundaries=_MILLISECONDS,
)
SCORER_TIME: Final = Metric(
    name="addiffusion_reward_scorer_ms",
    kind="histogram",
    unit="milliseconds",
    description="Time of one model in one pass.",
    tags=("scorer",),
    boundaries=_MILLISECONDS,
)
IMAGES: Final = Metric(
    name="addiffusion_reward_images",
    kind="counter",
    unit="images",
    description="Images scored; its rate is the throughput.",
)
CACHE_HITS: Final = Metric(
    name="addiffusion_reward_cache_hits",
    kind="counter",
    unit="images",
    description="Images whose scores were known, or that equal another image of their pass.",
)
ERRORS: Final = Metric(
    name="addiffusion_reward_errors",
    kind="counter",
    unit="images",
    description="Images without a score, by the model that failed on them.",
    tags=("scorer",),
)
HELD_BACK: Final = Metric(
    name="addiffusion_reward_held_back",
    kind="counter",
    unit="requests",
    description="Requests that had to wait for room in the queue.",
)
LATE: Final = Metric(
    name="addiffusion_reward_late",
    kind="counter",
    unit="requests",
    description="Requests that ran past scorers.timeout_s.",
)
HUNG: Final = Metric(
    name="addiffusion_reward_hung",
    kind="counter",
    unit="passes",
    description="Passes given up after scorers.pass_timeout_s, by the model that hung.",
    tags=("scorer",),
)
HALVED: Final = Metric(
    name="addiffusion_reward_halved",
    kind="counter",
    unit="passes",
    description="Passes that ran out of memory, after which batches are half as large.",
)
ALL: Final = (QUEUE_DEPTH, BATCH_SIZE, WAIT, SCORER_TIME, IMAGES, CACHE_HITS, ERRORS, HELD_BACK, LATE, HUNG, HALVED)
