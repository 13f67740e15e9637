"""What HTTP and Ray Serve add to a request: the same one, again and again, by each way in turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from rich.console import Console

from addiffusion.errors import UsageError
from launch.bench.load import ask
from launch.bench.rounds import shown_turns
from serving.drawing import Drawing
from serving.messages import Drawn
from serving.orders import order_of
from serving.request_models import ImageRequest

DIRECT, HTTP, SERVE = "direct", "http", "serve"
_ROUNDS: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request."""

    seconds: float
    engine_seconds: float
    """Of them, those of its image in its slot."""


async def drawn(drawing: Drawing, body: Mapping[str, Any]) -> Drawn:
    """The image of a request by a direct call."""
    outcomes = [one async for one in drawing.draw(order_of(ImageRequest.model_validate(body), drawing.facts))]
    return next(one for one in outcomes if isinstance(one, Drawn))


def overheads(
    drawing: Drawing, addresses: Mapping[str, str], body: Mapping[str, Any], console: Console
) -> dict[str, float]:
    """How much longer a request takes than what is below it, as a share, at the median of turns.

    Args:
        drawing: the engine for direct calls.
        addresses: host and port by name; that of the same engine is `HTTP`.
        body: of the request.
        console: shows the turns.

    Returns:
        ``http_overhead_frac`` over direct calls of the same engine, and for every address, as
        ``NAME_over_engine_frac``, the answer over the image's own time in the engine that drew it: with another engine
        behind it, which has its own threads, that is the only fair comparison.

    Raises:
        UsageError: nobody answers at an address.
    """
    ways = {DIRECT: partial(_direct, drawing, body)}
    ways |= {name: partial(_over_http, address, body) for name, address in addresses.items()}
    for way in ways.values():
        way()  # what is slow once is over
    turns = shown_turns(ways, _ROUNDS, console)
    taken = {name: np.array([(one.seconds, one.engine_seconds) for one in each]) for name, each in turns.items()}
    added = {f"{name}_over_engine_frac": _median(taken[name][:, 0] / taken[name][:, 1]) for name in addresses}
    return {"http_overhead_frac": _median(taken[HTTP][:, 0] / taken[DIRECT][:, 0]), **added}


def _direct(drawing: Drawing, body: Mapping[str, Any]) -> Asked:
    begun = time.perf_counter()
    image = asyncio.run(drawn(drawing, body))
    return Asked(seconds=time.perf_counter() - begun, engine_seconds=image.engine_seconds)


def _over_http(address: str, body: Mapping[str, Any]) -> Asked:
    answer: dict[str, Any] = {}
    begun = time.perf_counter()
    ask(address, dict(body), answer)
    seconds = time.perf_counter() - begun
    if "record" not in answer:
        raise UsageError(
            f"{address} does not answer as `addiffusion serve` does ({answer['error']}): give host and port of a "
            "server that runs."
        )
    return Asked(seconds=seconds, engine_seconds=answer["record"]["engine_seconds"])


def _median(ratios: Any) -> float:
    return float(np.median(ratios)) - 1
