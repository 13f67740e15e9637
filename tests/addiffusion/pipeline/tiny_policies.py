"""Policies of the tiny pipelines, and the pipelines themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

from addiffusion.actions import FIRST_ACTIONS, Action
from addiffusion.backbones.widths import feature_widths
from addiffusion.config import BackboneSection, Config
from addiffusion.observation.layout import latent_layout
from addiffusion.pipeline.policy import Policy
from tests.addiffusion.backbones.family_runs import KINDS, SIZE, safety

STEPS, WARMUP, FINISH, K = 5, 1, 1, 2
TIMESTEP_WIDTH = 16


def load_base(family: str, folder: Path) -> Any:
    """The family's own pipeline, without a progress bar."""
    base: Any = DiffusionPipeline.from_pretrained(folder, **safety(family))
    base.set_progress_bar_config(disable=True)
    return base


def scale_of(family: str) -> float:
    return 1.0 if family == "flux" else 4.0


def make_config(
    family: str,
    folder: Path,
    *,
    actions: Sequence[str] = FIRST_ACTIONS,
    guidance_scale_range: tuple[float, float] | None = None,
    previews: Sequence[float] = (),
    **sampler: Any,
) -> Config:
    """A training of a ``latent`` policy on a tiny pipeline, by its own solver."""
    return Config.model_validate(
        {
            "backbone": {
                "kind": KINDS[family],
                "path": str(folder),
                "guidance_scale": scale_of(family),
                "guidance_scale_range": guidance_scale_range,
                "image_size": SIZE,
            },
            "sampler": {
                "solver": "pipeline",
                "num_steps": STEPS,
                "warmup_steps": WARMUP,
                "finish_steps": FINISH,
                **sampler,
            },
            "refine": {"k": K},
            "observation": {"kind": "latent", "timestep_width": TIMESTEP_WIDTH, "previews": previews},
            "reward": {"preset": "paired", "credit": "final"},
            "policy": {"hidden": (8,), "actions": actions},
        }
    )


def make_policy(family: str, folder: Path, always: Action | None = None, **options: Any) -> Policy:
    """A policy of random weights, or one that always does the same."""
    own = {name: options.pop(name) for name in ("actions", "guidance_scale_range", "previews") if name in options}
    config = make_config(family, folder, **own, **options.pop("sampler", {}))
    widths = feature_widths(BackboneSection(kind=KINDS[family], path=str(folder)))  # pyright: ignore[reportArgumentType]
    layout = latent_layout(
        middle_width=widths.middle,
        text_width=widths.text,
        timestep_width=TIMESTEP_WIDTH,
        previews=bool(config.observation.previews),
    )
    torch.manual_seed(3)
    policy = Policy(layout.width, config.model_dump(mode="json"), **options).eval()
    if always is not None:
        with torch.no_grad():
            policy.network.layers[-1].bias[Action.CONTINUE] += 20.0  # where that can't be taken
            policy.network.layers[-1].bias[always] = 50.0
    return policy


def passes_of(family: str) -> int:
    """Passes of a full run: PNDM takes one of its steps twice."""
    return STEPS + (family == "sd15")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
