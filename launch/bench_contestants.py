"""Ways to denoise many images whose lengths differ, each told in network passes per second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from addiffusion.actions import Action
from addiffusion.backbones.base import Backbone, PromptEmbedding
from addiffusion.backbones.solvers import solver_of
from addiffusion.config import RefineSection, SamplerSection
from addiffusion.sampling.engine import Engine

SHORTEST, LONGEST = 5, 50
"""Episode lengths are drawn from U[SHORTEST, LONGEST]."""
REFINE_FRAC = 0.1
"""Share of decisions that are refines."""
SAMPLER = SamplerSection(num_steps=LONGEST, warmup_steps=3, finish_steps=0)

_MIDDLE = 500.0
_PASSES_PER_LOOK = 2
"""Single passes between two looks at the clock: looking makes a GPU wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What all contestants run on."""

    backbone: Backbone
    prompt: PromptEmbedding
    guidance_scale: float
    slots: int

    @property
    def rows_per_slot(self) -> int:
        """Rows of the network batch per image."""
        return 2 if self.guidance_scale > 1 else 1

    def finished_s(self) -> float:
        """The clock, once the device has done all it was given."""
        if self.backbone.device.type == "cuda":
            torch.cuda.synchronize(self.backbone.device)
        return time.perf_counter()


@dataclass(slots=True, kw_only=True)
class Score:
    """Passes that led somewhere, and the time they took."""

    nfe: int = 0
    seconds: float = 0.0

    @property
    def nfe_s(self) -> float:
        """NFE per second."""
        return self.nfe / self.seconds if self.seconds else 0.0


class BareNetwork:
    """The network alone, again and again on the same input: what nobody can beat."""

    single_passes = True

    def __init__(self, course: Course, batch: int) -> None:
        rows = course.rows_per_slot * batch
        self.batch = batch
        self._backbone = course.backbone
        self._z = torch.randn(rows, *course.backbone.latent_shape).to(course.backbone.device)
        self._hidden = course.prompt.hidden.to(course.backbone.device).repeat(rows, 1, 1)
        pooled = course.prompt.pooled
        self._pooled = None if pooled is None else pooled.to(course.backbone.device).repeat(rows, 1)

    def work(self) -> Iterator[int]:
        """One pass after the other."""
        while True:
            self.run(self._z, _MIDDLE)
            yield self.batch

    def run(self, z: Tensor, t: float) -> Tensor:
        """One pass at a timestep."""
        return self._backbone.denoise(z, torch.full((len(z),), t, device=z.device), self._hidden, self._pooled)


class Continuous:
    """The engine with a queue that never ends."""

    single_passes = True

    def __init__(self, course: Course, *, seed: int = 0) -> None:
        self._course = course
        self._rng = np.random.default_rng(seed)
        self._engine = Engine(
            course.backbone, SAMPLER, RefineSection(), slots=course.slots, guidance_scale=course.guidance_scale
        )
        self._length = [0] * course.slots
        self._episodes = 0

    def work(self) -> Iterator[int]:
        """One tick after the other, refilled at once; every slot is one NFE further."""
        engine = self._engine
        while True:
            for slot in engine.done():
                engine.release(slot)
            for slot in engine.free():
                engine.admit(slot, embedding=self._course.prompt, seed=self._episodes)
                self._length[slot] = _length(self._rng)
                self._episodes += 1
            engine.tick()
            engine.act({slot: self._action(slot) for slot in engine.deciding()})
            yield self._course.slots

    def _action(self, slot: int) -> Action:
        if self._engine.info(slot).step + 1 >= self._length[slot]:
            return Action.STOP
        return Action.REFINE if self._rng.random() < REFINE_FRAC else Action.CONTINUE


class LockStep:
    """Batches of images that all run as long as the longest of them; batch 1 is one image after the other."""

    single_passes = False

    def __init__(self, course: Course, batch: int, *, seed: int = 0) -> None:
        self._network = BareNetwork(course, batch)
        self._course = course
        self._batch = batch
        self._rng = np.random.default_rng(seed)
        self._scheduler: Any = solver_of(course.backbone.scheduler, SAMPLER)

    def work(self) -> Iterator[int]:
        """One whole batch after the other; images that have ended still take part, but count no longer."""
        while True:
            lengths = [_length(self._rng) for _ in range(self._batch)]
            self._run(max(lengths))
            yield sum(lengths)

    @torch.inference_mode()
    def _run(self, passes: int) -> None:
        self._scheduler.set_timesteps(LONGEST)
        z = torch.randn(self._batch, *self._course.backbone.latent_shape).to(self._course.backbone.device)
        for t in self._scheduler.timesteps[:passes]:
            z = self._scheduler.step(self._predict(z, float(t)), t, z).prev_sample

    def _predict(self, z: Tensor, t: float) -> Tensor:
        course = self._course
        output = self._network.run(torch.cat([z] * course.rows_per_slot), t)
        if course.rows_per_slot == 1:
            return output
        uncond, cond = output.chunk(2)
        return uncond + course.guidance_scale * (cond - uncond)


class StockPipeline:
    """diffusers' own pipeline at the same batch: fixed length, nothing adaptive, latents out."""

    single_passes = False
    STEPS = 20

    def __init__(self, course: Course) -> None:
        backbone: Any = course.backbone
        self._pipeline, self._scale = backbone.pipeline, course.guidance_scale
        self._pipeline.set_progress_bar_config(disable=True)
        dtype = backbone.dtype
        for name in ("text_encoder", "text_encoder_2"):  # the pipeline gives its latents their precision
            if getattr(self._pipeline, name, None) is not None:
                getattr(self._pipeline, name).to(dtype=dtype)
        hidden = course.prompt.hidden.to(course.backbone.device, dtype).repeat(course.slots, 1, 1)
        self._inputs: dict[str, Any] = {"prompt_embeds": hidden}
        if course.rows_per_slot == 2:
            self._inputs["negative_prompt_embeds"] = hidden
        if course.prompt.pooled is not None:
            pooled = course.prompt.pooled.to(course.backbone.device, dtype).repeat(course.slots, 1)
            self._inputs["pooled_prompt_embeds"] = pooled
            if course.rows_per_slot == 2:
                self._inputs["negative_pooled_prompt_embeds"] = pooled
        self._images = course.slots

    def work(self) -> Iterator[int]:
        """One call after the other."""
        while True:
            self._pipeline(
                **self._inputs, num_inference_steps=self.STEPS, guidance_scale=self._scale, output_type="latent"
            )
            yield self._images * self.STEPS


class Entry:
    """A contestant with its score; it goes on where its last round ended."""

    def __init__(self, contestant: Any) -> None:
        self._contestant = contestant
        self._steps: Iterator[int] = contestant.work()
        self._cold = contestant.single_passes
        self.score = Score()

    def run_for(self, seconds: float, course: Course) -> None:
        """Work for a while and add to the score; a first single pass is not timed."""
        if self._cold:
            next(self._steps)
            self._cold = False
        started = course.finished_s()
        nfe, now = 0, started
        while now - started < seconds:
            for _ in range(_PASSES_PER_LOOK if self._contestant.single_passes else 1):
                nfe += next(self._steps)
            now = course.finished_s()
        self.score.nfe += nfe
        self.score.seconds += now - started


def _length(rng: np.random.Generator) -> int:
    return int(rng.integers(SHORTEST, LONGEST + 1))
