"""Ways to denoise many images whose lengths differ, each told in network passes per second."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from addiffusion.actions import Action
from addiffusion.backbones.base import Backbone, PassRecord, PromptEmbedding
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
class BenchSetup:
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

    def __init__(self, setup: BenchSetup, batch: int) -> None:
        rows = setup.rows_per_slot * batch
        self.nfe_per_pass = float(batch)
        self._backbone = setup.backbone
        self._z = torch.randn(rows, *setup.backbone.latent_shape).to(setup.backbone.device)
        self._hidden = setup.prompt.hidden.to(setup.backbone.device).repeat(rows, 1, 1)
        pooled = setup.prompt.pooled
        self._pooled = None if pooled is None else pooled.to(setup.backbone.device).repeat(rows, 1)

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

    def __init__(self, setup: BenchSetup, *, refine_frac: float = REFINE_FRAC, seed: int = 0) -> None:
        self._setup, self._refine_frac = setup, refine_frac
        self.nfe_per_pass = float(setup.slots)
        self._rng = np.random.default_rng(seed)
        self._engine = Engine(
            setup.backbone, SAMPLER, RefineSection(), slots=setup.slots, guidance_scale=setup.guidance_scale
        )
        self._left = [0] * setup.slots
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
                engine.admit(slot, embedding=self._setup.prompt, seed=self._episodes)
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

    def __init__(self, setup: BenchSetup, batch: int, *, seed: int = 0) -> None:
        self.nfe_per_pass = useful_rows(batch)
        self._network = BareNetwork(setup, batch)
        self._setup = setup
        self._batch = batch
        self._rng = np.random.default_rng(seed)
        self._scheduler: Any = solver_of(setup.backbone.scheduler, SAMPLER)

    @torch.inference_mode()
    def work(self) -> Iterator[int]:
        """One pass after the other."""
        while True:
            longest = max(_length(self._rng) for _ in range(self._batch))
            self._scheduler.set_timesteps(LONGEST)
            z = torch.randn(self._batch, *self._setup.backbone.latent_shape).to(self._setup.backbone.device)
            for t in self._scheduler.timesteps[:longest]:
                z = self._scheduler.step(self._predict(z, float(t)), t, z).prev_sample
                yield 1

    def _predict(self, z: Tensor, t: float) -> Tensor:
        setup = self._setup
        output = self._network.run(torch.cat([z] * setup.rows_per_slot), t)
        if setup.rows_per_slot == 1:
            return output
        uncond, cond = output.chunk(2)
        return uncond + setup.guidance_scale * (cond - uncond)


class StockPipeline:
    """diffusers' own pipeline at the same batch: fixed length, nothing adaptive, latents out."""

    STEPS = 20

    def __init__(self, setup: BenchSetup) -> None:
        backbone: Any = setup.backbone
        self._pipeline, self._scale = backbone.pipeline, setup.guidance_scale
        self._pipeline.set_progress_bar_config(disable=True)
        dtype = backbone.dtype
        for name in ("text_encoder", "text_encoder_2"):  # the pipeline gives its latents their precision
            if getattr(self._pipeline, name, None) is not None:
                getattr(self._pipeline, name).to(dtype=dtype)
        hidden = setup.prompt.hidden.to(setup.backbone.device, dtype).repeat(setup.slots, 1, 1)
        side = setup.backbone.image_size
        self._inputs: dict[str, Any] = {"prompt_embeds": hidden, "height": side, "width": side}
        if setup.rows_per_slot == 2:
            self._inputs["negative_prompt_embeds"] = hidden
        if setup.prompt.pooled is not None:
            pooled = setup.prompt.pooled.to(setup.backbone.device, dtype).repeat(setup.slots, 1)
            self._inputs["pooled_prompt_embeds"] = pooled
            if setup.rows_per_slot == 2:
                self._inputs["negative_pooled_prompt_embeds"] = pooled
        self.nfe_per_pass = float(setup.slots)

    def work(self) -> Iterator[int]:
        """One call after the other."""
        while True:
            self._pipeline(
                **self._inputs, num_inference_steps=self.STEPS, guidance_scale=self._scale, output_type="latent"
            )
            yield self.STEPS


class TimedContestant:
    """A contestant with what it reached in each round; it goes on where its last round ended."""

    def __init__(self, contestant: Any, setup: BenchSetup) -> None:
        self._nfe_per_pass: float = contestant.nfe_per_pass
        self._setup = setup
        self._steps: Iterator[int] = contestant.work()
        self.rates: list[float] = []
        """NFE per second, one for each round."""

    def warm_up(self) -> None:
        """Whatever is slow once: compiling, growing memory, filling the slots."""
        passes = 0
        while passes < _WARM_UP:
            passes += next(self._steps)

    def run_for(self, seconds: float) -> None:
        """One round: work for at least so long."""
        started = now = self._setup.finished_s()
        passes = 0
        while now - started < seconds:
            passes += next(self._steps)
            now = self._setup.finished_s()
        self.rates.append(self._nfe_per_pass * passes / (now - started))


class Timed:
    """The port by delegation, with an account of the time in the network and in its record's attention maps."""

    def __init__(self, backbone: Backbone, clock: Callable[[], float]) -> None:
        self._backbone, self._clock = backbone, clock
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def denoise(self, *inputs: Tensor) -> Tensor:
        """One pass, timed."""
        return self.timed("network", self._backbone.denoise, *inputs)

    def last_pass(self) -> TimedPass:
        """A record whose attention maps are timed."""
        return TimedPass(self._backbone.last_pass(), self)

    def timed(self, name: str, compute: Callable[..., Tensor], *inputs: Any) -> Tensor:
        """What is computed, with its time on the account."""
        started = self._clock()
        output = compute(*inputs)
        self.seconds[name] += self._clock() - started
        return output


class TimedPass:
    """A record of a pass whose attention maps, of either kind, are on the account."""

    def __init__(self, record: PassRecord, account: Timed) -> None:
        self._record, self._account = record, account

    def attention_maps(self, rows: Sequence[int]) -> Tensor:
        """As the record's, timed."""
        return self._account.timed("attention", self._record.attention_maps, rows)

    def self_attention_maps(self, rows: Sequence[int]) -> Tensor:
        """As the record's, timed."""
        return self._account.timed("attention", self._record.self_attention_maps, rows)

    def middle_features(self) -> Tensor:
        """The record's."""
        return self._record.middle_features()


def ratio(one: TimedContestant, other: TimedContestant) -> float:
    """Median of the rounds' ratios: a slow minute of the machine is in both of a round's rates."""
    return float(np.median(np.array(one.rates) / np.array(other.rates)))


def useful_rows(batch: int) -> float:
    """Mean number of images of a padded batch that a pass still leads on."""
    lengths = np.random.default_rng(0).integers(SHORTEST, LONGEST + 1, (_DRAWN_BATCHES, batch))
    return float(lengths.sum() / lengths.max(axis=1).sum())


def _length(rng: np.random.Generator) -> int:
    return int(rng.integers(SHORTEST, LONGEST + 1))
