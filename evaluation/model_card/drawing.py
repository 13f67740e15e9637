"""Images of test prompts in batches of one size, judged by the scorer suite of the weights under measurement."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from addiffusion.config import PromptsSection, ScorersSection
from addiffusion.config.sampling import FinishSolverName
from addiffusion.embedded.models.samples import SceneSampler
from addiffusion.embedded.world import Split
from addiffusion.embedded.world.scenes import TIERS
from addiffusion.prompts import load_prompts
from addiffusion.records import METRIC_NAMES, Prompt, ScoreRequest
from addiffusion.scorers.embedded import embedded_suite
from addiffusion.scorers.suite import ScorerSuite
from addiffusion.seeds import derive_seed
from evaluation.model_card.plan import Advance, CardPlan

BATCH = 32
"""Images per batch, always: a row's bits must not depend on how many images were asked for."""


JUDGED = ("clip", *METRIC_NAMES)
"""Scores of the card: cosine, soft and strict scene score."""
Scores = dict[str, NDArray[np.float64]]
"""(n,) by score name, and ``dino`` (n, f) where it was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One way to sample."""

    solver: FinishSolverName
    steps: int
    guidance: float


class CardRunner:
    """Draws and judges with the weights under measurement."""

    def __init__(self, plan: CardPlan, advance: Advance) -> None:
        self.plan, self._advance = plan, advance
        self.sampler = SceneSampler.from_folder(plan.weights / "pipeline")

    @cached_property
    def scoring(self) -> ScorerSuite:
        """The scorers of the weights under measurement, on the CPU."""
        return embedded_suite(ScorersSection(device="cpu", batch_images=BATCH), self.plan.weights)

    def prompts(self, per_tier: int, split: Split = "test") -> tuple[Prompt, ...]:
        """The first prompts of a split, all tiers in turn."""
        return load_prompts(PromptsSection(), split=split, count=per_tier * len(TIERS), seed=self.plan.seed)

    def z0_preds(
        self, prompts: tuple[Prompt, ...], setting: Setting, what: str
    ) -> Iterator[tuple[tuple[Prompt, ...], list[Tensor]]]:
        """Batches of prompts, each with its clean prediction at every step; image i has noise of its own."""
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
            yield batch, [z0[: len(batch)] for z0 in moments]
            self._advance(what, len(batch) * setting.steps)

    def images(self, prompts: tuple[Prompt, ...], setting: Setting, what: str) -> UInt8[np.ndarray, "n h w 3"]:
        """Finished images."""
        return np.concatenate(
            [self.sampler.decode(moments[-1]) for _, moments in self.z0_preds(prompts, setting, what)]
        )

    def judge(
        self,
        images: UInt8[np.ndarray, "n h w 3"],
        prompts: tuple[Prompt, ...],
        names: tuple[str, ...] = JUDGED,
        embeddings: tuple[str, ...] = (),
    ) -> Scores:
        """Scores of each image against its own prompt.

        Args:
            images: (n, h, w, 3).
            prompts: (n), one per image.
            names: scores to compute.
            embeddings: ``dino`` for its features, (n, f); none by default.
        """
        texts = tuple(prompt.text for prompt in prompts)
        reply = self.scoring.score(ScoreRequest(images=images, prompts=texts, names=names, embeddings=embeddings))
        columns = {name: reply.values[:, k].astype(np.float64) for k, name in enumerate(names)}
        return columns | {"dino": reply.dino_embedding.astype(np.float64)}


def tier_rows(prompts: tuple[Prompt, ...], tier: int) -> NDArray[np.intp]:
    """Positions of a tier's prompts."""
    return np.flatnonzero([prompt.tier == tier for prompt in prompts])
