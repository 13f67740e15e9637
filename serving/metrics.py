"""Metrics of a server, each declared once."""

from __future__ import annotations

from typing import Final

from addiffusion.metrics import Metric

_SECONDS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0)
_PASSES: Final = (1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 20.0, 25.0, 30.0, 40.0, 50.0, 75.0, 100.0, 200.0)

REQUESTS: Final = Metric(
    name="addiffusion_serve_requests",
    kind="counter",
    unit="requests",
    description="Requests answered, by outcome: done, cancelled, or the code of the error.",
    tags=("outcome",),
)
QUEUE: Final = Metric(
    name="addiffusion_serve_queue_images",
    kind="gauge",
    unit="images",
    description="Images that wait for a slot.",
)
SLOTS: Final = Metric(
    name="addiffusion_serve_slots_busy",
    kind="gauge",
    unit="images",
    description="Images under way.",
)
ROWS: Final = Metric(
    name="addiffusion_serve_rows",
    kind="counter",
    unit="rows",
    description="Rows of network passes that an image took; its rate over that of the ticks is the rows in use.",
)
TICKS: Final = Metric(
    name="addiffusion_serve_ticks",
    kind="counter",
    unit="passes",
    description="Network passes; its rate is the pace.",
)
IMAGES: Final = Metric(
    name="addiffusion_serve_images",
    kind="counter",
    unit="images",
    description="Images drawn; its rate is the throughput.",
)
COST: Final = Metric(
    name="addiffusion_serve_image_cost",
    kind="histogram",
    unit="passes",
    description="Cost of an image in guided passes.",
    boundaries=_PASSES,
)
SPENT: Final = Metric(
    name="addiffusion_serve_cost",
    kind="counter",
    unit="passes",
    description="Cost of all images in guided passes.",
)
FULL: Final = Metric(
    name="addiffusion_serve_full_cost",
    kind="counter",
    unit="passes",
    description="What the full runs of all images would have cost; what is missing of it was saved.",
)
FIRST_PREVIEW: Final = Metric(
    name="addiffusion_serve_first_preview_seconds",
    kind="histogram",
    unit="seconds",
    description="From the arrival of a request to its first preview.",
    boundaries=_SECONDS,
)
END_TO_END: Final = Metric(
    name="addiffusion_serve_request_seconds",
    kind="histogram",
    unit="seconds",
    description="From the arrival of a request to its last image.",
    boundaries=_SECONDS,
)
CANCELLED: Final = Metric(
    name="addiffusion_serve_cancelled_images",
    kind="counter",
    unit="images",
    description="Images that were called off by their client, waiting or under way.",
)
RAISED: Final = Metric(
    name="addiffusion_serve_deadline_rises",
    kind="counter",
    unit="images",
    description="Images whose price rose because their deadline came near.",
)
RESTARTS: Final = Metric(
    name="addiffusion_serve_engine_restarts",
    kind="counter",
    unit="engines",
    description="Engines that were made anew after an error; the images under way begin again.",
)
ALL: Final = (
    REQUESTS,
    QUEUE,
    SLOTS,
    ROWS,
    TICKS,
    IMAGES,
    COST,
    SPENT,
    FULL,
    FIRST_PREVIEW,
    END_TO_END,
    CANCELLED,
    RAISED,
    RESTARTS,
)
