"""How images are usually served: requests of equal setting wait in a queue and are drawn in static batches."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from addiffusion.seeds import generator
from serving.errors import ImageError
from serving.jobs import Progress
from serving.messages import Accepted, Drawn, Order, Outcome, Steer
from serving.model import ServedFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """An image that waits for its batch."""

    order: Order
    image: int
    arrived_s: float
    drawn: Future[Drawn] = field(default_factory=Future[Drawn])

    @property
    def alike(self) -> tuple[Any, ...]:
        """What all images of a batch have in common."""
        return self.order.setting, self.order.c_nfe, self.order.full_run


DrawBatch = Callable[[Sequence[Waiting]], list[Drawn]]


class StaticDrawing:
    """A ``Drawing`` by batches that nobody joins, and that nobody leaves before their end.

    A batch is begun as soon as the last one has ended, by the image that has waited longest and those like it.
    """

    def __init__(self, facts: ServedFacts, draw_batch: DrawBatch, size: int) -> None:
        """A drawing at work.

        Args:
            facts: what clients may ask for.
            draw_batch: draws images that are alike.
            size: images of a batch at most.
        """
        self._facts, self._draw_batch, self._size = facts, draw_batch, size
        self._arrived: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="static batches", daemon=True)
        self._thread.start()

    @property
    def facts(self) -> ServedFacts:
        """See ``Drawing.facts``."""
        return self._facts

    def close(self, within_s: float) -> None:
        """Draw what waits, and end."""
        self._arrived.put(None)
        self._thread.join(within_s)

    async def draw(self, order: Order) -> AsyncGenerator[Outcome]:
        """See ``Drawing.draw``."""
        now = time.monotonic()
        waiting = [Waiting(order=order, image=image, arrived_s=now) for image in range(len(order.seeds))]
        for one in waiting:
            self._arrived.put(one)
        yield Accepted(request_id=order.request_id, waiting_count=self._arrived.qsize())
        for one in waiting:
            yield await asyncio.wrap_future(one.drawn)

    async def steer(self, message: Steer) -> None:
        """Nothing can be changed in a batch."""

    async def interrupt(self) -> None:
        """Nothing leaves a batch."""

    async def progress(self, *, preview: bool) -> Progress | None:
        """Nothing is known of a batch before its end."""

    async def check_health(self) -> None:
        """See ``Drawing.check_health``."""

    def _run(self) -> None:
        waiting: list[Waiting] = []
        while True:
            if not self._take(waiting):
                return
            batch = [one for one in waiting if one.alike == waiting[0].alike][: self._size]
            waiting = [one for one in waiting if one not in batch]
            try:
                for one, drawn in zip(batch, self._draw_batch(batch), strict=True):
                    one.drawn.set_result(replace(drawn, seconds=time.monotonic() - one.arrived_s))
            except Exception as error:  # the border of a thread: who waits for an answer would wait forever
                for one in batch:
                    if not one.drawn.done():
                        one.drawn.set_exception(ImageError(f"The batch could not be drawn: {error}"))

    def _take(self, waiting: list[Waiting]) -> bool:
        """Add what has arrived, one at least; False at the end."""
        while True:
            try:
                arrived = self._arrived.get(block=not waiting)
            except queue.Empty:
                return True
            if arrived is None:
                return False
            waiting.append(arrived)


def by_pipeline(pipe: Any, facts: ServedFacts, shape: Sequence[int]) -> DrawBatch:
    """Batches drawn by an `AdaptivePipeline`: by its policy, or as full runs by the family's own loop.

    They begin with the engine's own noise, so an image has the same seed in every contestant.

    Args:
        pipe: has the policy.
        facts: of the model.
        shape: (c, h, w) of a latent.
    """

    def draw_batch(batch: Sequence[Waiting]) -> list[Drawn]:
        order, begun_s = batch[0].order, time.monotonic()
        seeds = [one.order.seeds[one.image] for one in batch]
        steps = order.setting.num_steps or facts.num_steps
        scale = facts.guidance_scale if order.setting.guidance_scale is None else order.setting.guidance_scale
        led: dict[str, Any] = {"policy": None} if order.full_run else {"c_nfe": order.c_nfe, "slots": len(batch)}
        out = pipe(
            [one.order.prompt for one in batch],
            num_inference_steps=steps,
            guidance_scale=scale,
            latents=torch.stack([torch.randn(shape, generator=generator(seed, "latent")) for seed in seeds]),
            output_type="np",
            **led,
        )
        per_pass, passes = 2 if scale > 1 else 1, [steps] * len(batch)
        nfe = passes if order.full_run else out.nfe
        evals = [per_pass * count for count in passes] if order.full_run else out.network_evals
        stopped = [None] * len(batch) if order.full_run else out.stopped_at
        return [
            Drawn(
                request_id=one.order.request_id,
                image=one.image,
                pixels=(255 * out.images[row]).round().astype(np.uint8),
                seed=seeds[row],
                c_nfe=order.c_nfe,
                nfe=nfe[row],
                network_evals=evals[row],
                cost=evals[row] / 2,
                full_cost=steps * per_pass / 2,
                actions=(),
                stopped_at=stopped[row],
                prompt_tokens=0,
                seconds=0.0,
                engine_seconds=time.monotonic() - begun_s,
            )
            for row, one in enumerate(batch)
        ]

    return draw_batch
