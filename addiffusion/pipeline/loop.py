"""The denoising loop of a call: images wait for slots of an engine, and leave as they are done."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from addiffusion.errors import RolloutError
from addiffusion.pipeline.batch import DrawnLatent, ImageBatch
from addiffusion.records import Ticket
from addiffusion.sampling.solver_tables.table import SolverTable
from addiffusion.setting import Setting


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTask:
    """One image to be drawn."""

    ticket: Ticket
    """Prompt, seed, price and setting; its ticket_id is the image's place in the call."""
    noise: Float[Tensor, "c h w"]
    """Of standard deviation 1."""


class ImageLoop:
    """Draws a list of images in one batch. Each is the same whatever else is drawn, with equal slots."""

    def __init__(self, batch: ImageBatch, table: SolverTable, tasks: Sequence[ImageTask]) -> None:
        """A loop that has not begun.

        Args:
            batch: without images.
            table: of the call's schedule.
            tasks: the images, in order.
        """
        self._batch, self._engine, self._table, self._tasks = batch, batch.engine, table, tasks
        self._waiting = deque(range(len(tasks)))
        self._drawn: dict[int, DrawnLatent] = {}

    @property
    def spent(self) -> int:
        """NFE so far, of all images."""
        under_way = sum(map(self._engine.nfe, self._batch.episodes))
        return under_way + sum(drawn.nfe for drawn in self._drawn.values())

    @property
    def busy(self) -> bool:
        """Whether an image is not done yet."""
        return bool(self._waiting or self._batch.episodes)

    def tick(self) -> None:
        """One network pass over all slots, and the decisions that follow it.

        Raises:
            RolloutError: an image came to values that are not finite, or its preview has no score.
        """
        self._refill()
        self._refuse_failed(self._batch.network_pass())
        _, failed = self._batch.decide()
        self._refuse_failed(failed)

    def collect(self) -> None:
        """Take the images that are done out of their slots."""
        for slot in self._engine.done():
            self._leave(slot)

    def end(self) -> None:
        """Take every image as it is now: those under way end in their clean prediction, those that wait in noise."""
        for slot in list(self._batch.episodes):
            self._leave(slot)
        for index in self._waiting:
            noise = self._initial(index)
            self._drawn[index] = DrawnLatent(z0=noise, nfe=0, network_evals=0, cost=0, actions=(), stopped_at=None)
        self._waiting.clear()

    def drawn(self) -> list[DrawnLatent]:
        """All images, in order."""
        return [self._drawn[index] for index in range(len(self._tasks))]

    # ---------------------------------------------------------------- for callbacks

    def latents(self) -> Float[Tensor, "n c h w"]:
        """Noisy latents of all images: noise of those that wait, the result of those that are done."""
        return self._of_all(self._engine.latents())

    def predictions(self) -> Float[Tensor, "n c h w"]:
        """Clean predictions of all images: noise of those that wait, the result of those that are done."""
        return self._of_all(self._engine.z0_pred)

    def timesteps(self) -> Float[Tensor, " n"]:
        """Timestep of each image's last pass: the first one of those that wait, 0 of those that are done."""
        first = float(self._table.timesteps[0])
        steps = dict.fromkeys(self._waiting, first) | dict.fromkeys(self._drawn, 0.0)
        steps |= {index: self._engine.info(slot).timestep for slot, index in self._under_way().items()}
        return torch.tensor([steps[index] for index in range(len(self._tasks))])

    def put_latents(self, latents: Float[Tensor, "n c h w"]) -> None:
        """Replace the latents of the images in slots; those that wait or have left their slot stay as they are."""
        self._engine.put_latents({slot: latents[index].float() for slot, index in self._under_way().items()})

    def set_guidance_scale(self, guidance_scale: float) -> None:
        """Guide all images by one scale from now on."""
        self._tasks = [_guided_by(task, guidance_scale) for task in self._tasks]
        for slot in self._batch.episodes:
            self._engine.set_guidance_scale(slot, guidance_scale)

    def _under_way(self) -> Mapping[int, int]:
        """Index of the image in each slot that has one."""
        return {slot: episode.ticket.ticket_id for slot, episode in self._batch.episodes.items()}

    def _of_all(self, of_slots: Float[Tensor, "slot c h w"]) -> Float[Tensor, "n c h w"]:
        found = {index: self._initial(index).to(of_slots) for index in self._waiting}
        found |= {index: drawn.z0 for index, drawn in self._drawn.items()}
        found |= {index: of_slots[slot] for slot, index in self._under_way().items()}
        return torch.stack([found[index] for index in range(len(self._tasks))])

    def _initial(self, index: int) -> Float[Tensor, "c h w"]:
        return self._tasks[index].noise * self._table.init_noise_sigma

    # ---------------------------------------------------------------- one tick

    def _refill(self) -> None:
        for _ in self._engine.free():
            if self._waiting:
                task = self._tasks[self._waiting.popleft()]
                self._batch.admit(task.ticket, noise=task.noise)

    def _refuse_failed(self, failed: Mapping[int, str]) -> None:
        for slot, reason in failed.items():
            raise RolloutError(f"Image {self._under_way()[slot]} could not be drawn. {reason}")

    def _leave(self, slot: int) -> None:
        self._drawn[self._under_way()[slot]] = self._batch.drawn(slot)
        self._batch.leave(slot)


def setting_of(*, guidance_scale: float, negative: str | None, cap: float | None, guided: bool) -> Setting:
    """Setting of an image of a call.

    Its cap is in NFE, whoever else is drawn: beside guided images a pass without guidance costs half of one.

    Args:
        guidance_scale: 1 or less is no guidance.
        negative: None leads away from the empty prompt.
        cap: most NFE of an image; None: any number.
        guided: some images of the call are.
    """
    cost = 0.5 if guided and guidance_scale <= 1 else 1.0
    return Setting(
        guidance_scale=guidance_scale, negative_prompt=negative, max_cost=None if cap is None else cap * cost
    )


def _guided_by(task: ImageTask, guidance_scale: float) -> ImageTask:
    """The same image at another scale, with as many NFE at most."""
    before = task.ticket.setting or Setting()
    scale = guidance_scale if before.guidance_scale is None else before.guidance_scale
    cap = before.max_cost
    if cap is not None:
        cap *= (2 if guidance_scale > 1 else 1) / (2 if scale > 1 else 1)
    setting = replace(before, guidance_scale=guidance_scale, max_cost=cap)
    return replace(task, ticket=replace(task.ticket, setting=setting))
