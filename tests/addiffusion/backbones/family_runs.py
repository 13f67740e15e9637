"""One image of a family of pipelines, drawn by the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from addiffusion.actions import Action
from addiffusion.backbones.base import Backbone
from addiffusion.config import BackboneSection, RefineSection, SamplerSection
from addiffusion.sampling.engine import Engine

STEPS = 4
KINDS = {"sd15": "stable_diffusion", "sdxl": "sdxl", "sd3": "sd3", "flux": "flux"}
SIZE = 16


def section(family: str, folder: Path, **options: Any) -> BackboneSection:
    scale = 1.0 if family == "flux" else 4.0
    return BackboneSection.model_validate(
        {"kind": KINDS[family], "path": str(folder), "device": "cpu", "guidance_scale": scale, "image_size": SIZE}
        | options
    )


PLAIN = SamplerSection(solver="pipeline", num_steps=STEPS, warmup_steps=1, finish_steps=0)


def run(
    backbone: Backbone,
    *,
    guidance: float,
    actions: tuple[Action, ...] = (),
    prompt: str = "a red cat",
    sampler: SamplerSection = PLAIN,
) -> Engine:
    """The image of seed 3 in slot 1 of two; the other one is busy with something else."""
    engine = Engine(backbone, sampler, RefineSection(), slots=2, guidance_scale=guidance)
    first, second = backbone.encode_prompts(["blue dog", prompt])
    negative = backbone.encode_prompts(["ugly"])[0] if guidance > 1 else None
    engine.admit(0, embedding=first, seed=9)
    engine.admit(1, embedding=second, seed=3, negative=negative)
    script = iter(actions)
    while engine.busy:
        engine.tick()
        chosen = next(script, Action.CONTINUE) if engine.deciding() else Action.CONTINUE
        engine.act(dict.fromkeys(engine.deciding(), chosen))
    return engine


def safety(family: str) -> dict[str, Any]:
    return {"safety_checker": None, "requires_safety_checker": False} if family == "sd15" else {}
