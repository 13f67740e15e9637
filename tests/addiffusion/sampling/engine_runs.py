"""Engines and scripted episodes that the engine tests share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from addiffusion.actions import Action
from addiffusion.backbones.stable_diffusion import StableDiffusionBackbone
from addiffusion.config import BackboneSection, RefineSection, SamplerSection
from addiffusion.sampling.engine import Engine
from tests.addiffusion.sampling.metered import embedding

C, S, R = Action.CONTINUE, Action.STOP, Action.REFINE
SAMPLER = SamplerSection(num_steps=10, warmup_steps=2, finish_steps=3)


def make_engine(
    backbone: Any,
    *,
    sampler: SamplerSection = SAMPLER,
    refine: RefineSection | None = None,
    slots: int = 3,
    guidance: float = 3.5,
    rows: int | None = None,
    row_buckets: bool = False,
) -> Engine:
    return Engine(
        backbone,
        sampler,
        refine or RefineSection(),
        slots=slots,
        guidance_scale=guidance,
        rows=rows,
        row_buckets=row_buckets,
    )


def run_one(engine: Engine, *, tag: int = 1, seed: int = 7, actions: Sequence[Action] = (), slot: int = 0) -> Tensor:
    """One episode to its end; continues where ``actions`` has run out. The slot is left DONE."""
    engine.admit(slot, embedding=embedding(tag), seed=seed)
    script = iter(actions)
    while engine.busy:
        engine.tick()
        engine.act({waiting: next(script, C) for waiting in engine.deciding()})
    return engine.z0_pred[slot]


def load(path: Path) -> StableDiffusionBackbone:
    section = BackboneSection(kind="stable_diffusion", path=str(path), device="cpu")
    return StableDiffusionBackbone.from_section(section)
