"""Ways to denoise many images whose lengths differ, each told in network passes per second."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
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
_DRAWN_BATCHES = 10_000
_WARM_UP = 2


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


class BareNetwork:
    """The network alone, again and again on the same input: what nobody can beat."""

    def __init__(self, course: Course, batch: int) -> None:
        rows = course.rows_per_slot * batch
        self.nfe_per_pass = float(batch)
        self._backbone = course.backbone
        self._z = torch.randn(rows, *course.backbone.latent_shape).to(course.backbone.device)
        self._hidden = course.prompt.hidden.to(course.backbone.device).repeat(rows, 1, 1)
        pooled = course.prompt.pooled
        self._pooled = None if pooled is None else pooled.to(course.backbone.device).repeat(rows, 1)

    def work(self) -> Iterator[int]:
        """One pass after the other."""
        while True:
            self.run(self._z, _MIDDLE)
            yield 1

    def run(self, z: Tensor, t: float) -> Tensor:
        """One pass at a timestep."""
        return self._backbone.denoise(z, torch.full((len(z),), t, device=z.device), self._hidden, self._pooled)


class Continuous:
    """The engine with a queue that never ends: every slot is one NFE further after each pass."""

    def __init__(self, course: Course, *, refine_frac: float = REFINE_FRAC, seed: int = 0) -> None:
        self._course, self._refine_frac = course, refine_frac
        self.nfe_per_pass = float(course.slots)
        self._rng = np.random.default_rng(seed)
        self._engine = Engine(
            course.backbone, SAMPLER, RefineSection(), slots=course.slots, guidance_scale=course.guidance_scale
        )
        self._left = [0] * course.slots
        self._episodes = 0
        self.deciding_s = 0.0
        """Seconds spent on what a policy would decide, which is not the engine's work."""

    def work(self) -> Iterator[int]:
        """One tick after the other, refilled at once."""
        engine = self._engine
        while True:
            for slot in engine.done():
                engine.release(slot)
            for slot in engine.free():
                engine.admit(slot, embedding=self._course.prompt, seed=self._episodes)
                self._left[slot] = _length(self._rng) - SAMPLER.warmup_steps
                self._episodes += 1
            engine.tick()
            deciding, started = engine.deciding(), time.perf_counter()
            actions = self._actions(deciding)
            self.deciding_s += time.perf_counter() - started
            engine.act(actions)
            yield 1

    def _actions(self, slots: Sequence[int]) -> dict[int, Action]:
        refines = (self._rng.random(len(slots)) < self._refine_frac).tolist()
        return {slot: self._action(slot, refine=refine) for slot, refine in zip(slots, refines, strict=True)}

    def _action(self, slot: int, *, refine: bool) -> Action:
        self._left[slot] -= 1
        if not self._left[slot]:
            return Action.STOP
        return Action.REFINE if refine else Action.CONTINUE


class LockStep:
    """Batches of images that all run as long as the longest of them; batch 1 is one image after the other.

    Images that have ended still take part, but their passes lead nowhere: a pass counts for the mean number of images
    that still need it.
    """

    def __init__(self, course: Course, batch: int, *, seed: int = 0) -> None:
        self.nfe_per_pass = useful_rows(batch)
        self._network = BareNetwork(course, batch)
        self._course = course
        self._batch = batch
        self._rng = np.random.default_rng(seed)
        self._scheduler: Any = solver_of(course.backbone.scheduler, SAMPLER)

    @torch.inference_mode()
    def work(self) -> Iterator[int]:
        """One pass after the other."""
        while True:
            longest = max(_length(self._rng) for _ in range(self._batch))
            self._scheduler.set_timesteps(LONGEST)
            z = torch.randn(self._batch, *self._course.backbone.latent_shape).to(self._course.backbone.device)
            for t in self._scheduler.timesteps[:longest]:
                z = self._scheduler.step(self._predict(z, float(t)), t, z).prev_sample
                yield 1

    def _predict(self, z: Tensor, t: float) -> Tensor:
        course = self._course
        output = self._network.run(torch.cat([z] * course.rows_per_slot), t)
        if course.rows_per_slot == 1:
            return output
        uncond, cond = output.chunk(2)
        return uncond + course.guidance_scale * (cond - uncond)


class StockPipeline:
    """diffusers' own pipeline at the same batch: fixed length, nothing adaptive, latents out."""

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
        self.nfe_per_pass = float(course.slots)

    def work(self) -> Iterator[int]:
        """One call after the other."""
        while True:
            self._pipeline(
                **self._inputs, num_inference_steps=self.STEPS, guidance_scale=self._scale, output_type="latent"
            )
            yield self.STEPS


class Entry:
    """A contestant with what it reached in each round; it goes on where its last round ended."""

    def __init__(self, contestant: Any, course: Course) -> None:
        self._nfe_per_pass: float = contestant.nfe_per_pass
        self._course = course
        self._steps: Iterator[int] = contestant.work()
        self.rates: list[float] = []
        """NFE per second, one for each round."""

    def warm_up(self) -> None:
        """Whatever is slow once: compiling, growing memory, filling the slots."""
        for _ in range(_WARM_UP):
            next(self._steps)

    def run_for(self, seconds: float) -> None:
        """One round: work for at least so long."""
        started = now = self._course.finished_s()
        passes = 0
        while now - started < seconds:
            passes += next(self._steps)
            now = self._course.finished_s()
        self.rates.append(self._nfe_per_pass * passes / (now - started))


def ratio(one: Entry, other: Entry) -> float:
    """Median of the rounds' ratios: a slow minute of the machine is in both of a round's rates."""
    return float(np.median(np.array(one.rates) / np.array(other.rates)))


def useful_rows(batch: int) -> float:
    """Mean number of images of a padded batch that a pass still leads on."""
    lengths = np.random.default_rng(0).integers(SHORTEST, LONGEST + 1, (_DRAWN_BATCHES, batch))
    return float(lengths.sum() / lengths.max(axis=1).sum())


def _length(rng: np.random.Generator) -> int:
    return int(rng.integers(SHORTEST, LONGEST + 1))
