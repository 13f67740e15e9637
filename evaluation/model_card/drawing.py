"""Images of test prompts in batches of one size, judged by the exact checker and the embedded CLIP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from addiffusion.config import PromptsSection
from addiffusion.embedded.models.clip import image_embedding, load_clip, text_embedding
from addiffusion.embedded.models.samples import SceneSampler, Solver
from addiffusion.embedded.world.captions import parse_caption
from addiffusion.embedded.world.checker import check
from addiffusion.embedded.world.pixels import to_network
from addiffusion.embedded.world.scenes import TIERS
from addiffusion.embedded.world.splits import Split
from addiffusion.prompts import load_prompts
from addiffusion.records import Prompt
from addiffusion.seeds import derive_seed
from evaluation.model_card.plan import Advance, CardPlan

BATCH = 32
"""Images per batch, always: a row's bits must not depend on how many images were asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneScores:
    """Scores of ``n`` images, (n,) each."""

    soft: NDArray[np.float64]
    strict: NDArray[np.float64]
    clip: NDArray[np.float64]
    """Cosines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One way to sample."""

    solver: Solver
    steps: int
    guidance: float


class CardRunner:
    """Draws and judges with the weights under measurement."""

    def __init__(self, plan: CardPlan, advance: Advance) -> None:
        self.plan, self._advance = plan, advance
        self.sampler = SceneSampler.from_folder(plan.weights / "pipeline")

    @cached_property
    def clip(self) -> Any:
        """(model, tokenize) of the embedded CLIP."""
        return load_clip(self.plan.weights / "clip")

    def prompts(self, per_tier: int, split: Split = "test") -> tuple[Prompt, ...]:
        """The first prompts of a split, all tiers in turn."""
        return load_prompts(PromptsSection(), split=split, count=per_tier * len(TIERS), seed=self.plan.seed)

    def z0_preds(self, prompts: tuple[Prompt, ...], setting: Setting, what: str) -> Iterator[list[Tensor]]:
        """For each batch of prompts, the clean prediction at every step; image i has noise of its own."""
        for start in range(0, len(prompts), BATCH):
            batch = prompts[start : start + BATCH]
            padded = (batch * BATCH)[:BATCH]
            noise = self.sampler.noise([derive_seed(self.plan.seed, "card", prompt.prompt_id) for prompt in padded])
            moments = self.sampler.z0_preds(
                [prompt.text for prompt in padded],
                noise,
                solver=setting.solver,
                steps=setting.steps,
                guidance=setting.guidance,
            )
            yield [z0[: len(batch)] for z0 in moments]
            self._advance(what, len(batch) * setting.steps)

    def images(self, prompts: tuple[Prompt, ...], setting: Setting, what: str) -> UInt8[np.ndarray, "n h w 3"]:
        """Finished images."""
        return np.concatenate([self.sampler.decode(moments[-1]) for moments in self.z0_preds(prompts, setting, what)])

    def judge(self, images: UInt8[np.ndarray, "n h w 3"], prompts: tuple[Prompt, ...]) -> SceneScores:
        """Checker and CLIP, image by image against its own prompt."""
        verdicts = [check(image, parse_caption(prompt.text)) for image, prompt in zip(images, prompts, strict=True)]
        return SceneScores(
            soft=np.array([verdict.soft for verdict in verdicts]),
            strict=np.array([float(verdict.strict) for verdict in verdicts]),
            clip=self._cosines(images, [prompt.text for prompt in prompts]).double().numpy(),
        )

    @torch.inference_mode()
    def _cosines(self, images: UInt8[np.ndarray, "n h w 3"], texts: list[str]) -> Float[Tensor, " n"]:
        model, tokenize = self.clip
        return (image_embedding(model, to_network(images)) * text_embedding(model, tokenize(texts))).sum(dim=1)


def tier_rows(prompts: tuple[Prompt, ...], tier: int) -> NDArray[np.intp]:
    """Positions of a tier's prompts."""
    return np.flatnonzero([prompt.tier == tier for prompt in prompts])
