"""A server of the toy diffusion model, in this process, on a port of its own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from addiffusion.actions import Action
from addiffusion.backbones.base import Backbone
from addiffusion.configuration.files import load_config
from addiffusion.pipeline.card import CurvePoint, PolicyCard
from addiffusion.pipeline.price import PriceDial
from addiffusion.scorers.base import Unscored
from serving.drawing import LocalDrawing
from serving.limits import Limits
from serving.loop import EngineLoop
from serving.messages import Order, Outcome, Submit
from serving.model import ServedModel
from serving.prometheus import PrometheusMeters
from serving.security import Access
from serving.shared_batch import SharedBatch
from serving.web import WebSettings, http_server, make_app
from tests.fakes import ToyBackbone

STEPS, WARMUP = 8, 2
FAST = [
    "observation.kind=latent",
    "reward.preset=paired",
    "reward.credit=final",
    f"sampler.num_steps={STEPS}",
    f"sampler.warmup_steps={WARMUP}",
    "sampler.finish_steps=1",
    "sampler.max_cost_share=null",
    "backbone.guidance_scale=2",
]
CARD = PolicyCard(
    backbone="toy",
    digest=(),
    full_cost=float(STEPS),
    curve=tuple(
        CurvePoint(c_nfe=price, cost=cost, steps=STEPS) for price, cost in ((0.01, 8.0), (0.04, 6.0), (0.1, 4.0))
    ),
    prompt_count=1,
)


def always(action: Action) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """A policy that knows one action."""
    logits = np.zeros(3, np.float32)
    logits[action] = 1
    return lambda phi: np.repeat(logits[None], len(phi), axis=0)


class SlowBackbone(ToyBackbone):
    """The toy model, at its leisure: each pass takes a while."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.rows: list[int] = []

    def denoise(self, z, t, hidden, pooled=None):
        self.rows.append(len(z))
        time.sleep(self.seconds)
        return super().denoise(z, t, hidden, pooled)


def toy_model(
    *,
    backbone: Backbone | None = None,
    act: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None,
    slots: int = 4,
    card: PolicyCard | None = CARD,
) -> ServedModel:
    config = load_config([], [*FAST, f"rollout.slots={slots}"])
    return ServedModel(
        name="toy",
        policy_name="toy",
        config=config,
        backbone=backbone or ToyBackbone(),
        scoring=Unscored(),
        act=act or always(Action.CONTINUE),
        dial=PriceDial.of(config, card),
    )


class Told:
    """What a request was told."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.outcomes: list[Outcome] = []

    def message(self) -> Submit:
        return Submit(order=self.order, tell=self.outcomes.append)

    def of(self, kind: type) -> list[Outcome]:
        return [one for one in self.outcomes if isinstance(one, kind)]


def order(name: str, *, images: int = 1, **changes) -> Order:
    made = Order(request_id=name, prompt=f"toy scene {name}", seeds=tuple(range(images)), c_nfe=0.04)
    return replace(made, **changes)


def shared_batch(model: ServedModel, limits: Limits | None = None, clock=time.monotonic) -> SharedBatch:
    return SharedBatch(model, limits=limits or Limits(), meters=PrometheusMeters(), clock=clock)


def tick(shared: SharedBatch) -> None:
    shared.pick()
    shared.network_pass()
    shared.update()
    shared.outcomes()


def submitted(shared: SharedBatch, name: str, **changes: Any) -> Told:
    told = Told(order(name, **changes))
    shared.submit(told.message())
    return told


def drained(shared: SharedBatch, ticks: int = 1000) -> int:
    """Ticks until nothing is left."""
    for count in range(ticks):
        if not shared.busy:
            return count
        tick(shared)
    raise AssertionError(f"not done after {ticks} ticks")


@dataclass(frozen=True, kw_only=True)
class Served:
    url: str
    loop: EngineLoop
    meters: PrometheusMeters
    thread: threading.Thread


@contextmanager
def served(model: ServedModel, *, key: str | None = None, limits: Limits | None = None) -> Generator[Served]:
    """The app behind uvicorn, as `addiffusion serve` has it."""
    limits, meters = limits or Limits(), PrometheusMeters()
    loop = EngineLoop(model, limits=limits, meters=meters)
    loop.start()
    drawing = LocalDrawing(loop, model.facts, limits)
    app = make_app(drawing, WebSettings(access=Access(key=key, loopback=True), limits=limits), meters.page)
    listening = socket.create_server(("127.0.0.1", 0))
    running = http_server(app, 5, ended=lambda: drawing.refusal is not None)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    port = listening.getsockname()[1]
    try:
        yield Served(url=f"http://127.0.0.1:{port}", loop=loop, meters=meters, thread=thread)
    finally:
        running.should_exit = True
        thread.join(20)
        assert loop.close(within_s=5)


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    file = folder / "key"
    file.write_text(text)
    file.chmod(mode)
    return file
