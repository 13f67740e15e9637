"""Training of the embedded preference model: Bradley-Terry over pairs whose better half is known by construction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (the name everyone knows it by)
from transformers import CLIPTokenizer

from addiffusion.embedded.making.part import (
    Objective,
    PartReport,
    Recipe,
    StepLoss,
    TrainingContext,
    initialised_by,
    run_training,
)
from addiffusion.embedded.making.trajectories import Trajectories, paired_frames, trajectories_of
from addiffusion.embedded.models.preference import PreferenceConfig, PreferenceModel, save_preference
from addiffusion.embedded.models.tokenizer import build_tokenizer, encode
from addiffusion.embedded.world.captions import vocabulary
from addiffusion.embedded.world.contradictions import contradict
from addiffusion.embedded.world.corruptions import corrupt, random_kinds
from addiffusion.embedded.world.data import scene_batch
from addiffusion.embedded.world.data import stream as random_source
from addiffusion.embedded.world.pixels import to_network
from addiffusion.seeds import derive_seed, generator

_STEPS: Final = 3_000
_BATCH: Final = 48
_BATCH_CUDA: Final = 384
_RECIPE: Final = Recipe(lr=1.5e-3, weight_decay=0.02, betas=(0.9, 0.98), warmup_steps=100, ema_decay=0.0)
"""No weight average: it would not fit the running statistics of the batch normalisation."""
_FULL_GAP: Final = 6.0
"""Bradley-Terry logit between a clean image and one of severity 1: keeps the scale of the score finite and graded."""
_CONTRADICTION_GAP: Final = 4.0
"""Bradley-Terry logit between a caption and its contradiction, for a clean image."""
_HELD_OUT: Final = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """``n`` scenes; ``mild`` and ``strong`` are corruptions of one kind."""

    clean: Float[Tensor, "n 3 h w"]
    mild: Float[Tensor, "n 3 h w"]
    strong: Float[Tensor, "n 3 h w"]
    severity: Float[Tensor, "2 n"]
    """Of ``mild`` and ``strong``."""
    true_ids: Int[Tensor, "n l"]
    false_ids: Int[Tensor, "n l"]


class PreferencePart:
    """``preference``: which of two images people would rather have for a prompt."""

    name = "preference"

    def train(self, context: TrainingContext) -> PartReport:
        """Writes ``preference``."""
        tokenizer = build_tokenizer(vocabulary())
        steps = context.steps(_STEPS)
        size = context.batch_size(cpu=_BATCH, cuda=_BATCH_CUDA)
        trajectories = trajectories_of(context)
        with initialised_by(context.seed, self.name):
            model = PreferenceModel(PreferenceConfig(vocab_size=len(tokenizer)))

        def loss(step: int) -> StepLoss:
            constructed = _constructed_pairs(model, _batch(tokenizer, context.seed, step, size), context.device)
            grown = _generated_pairs(model, tokenizer, trajectories, step, max(1, size // 2), context)
            total = constructed + grown
            return StepLoss(total=total, metrics={"loss": total, "generated": grown})

        result = run_training(Objective(name=self.name, module=model, loss=loss, recipe=_RECIPE), context, steps=steps)
        model.cpu().eval()
        count = context.pool_size(cpu=_HELD_OUT)
        standardise(model, tokenizer, seed=context.seed, count=count)
        save_preference(model, context.out / "preference")
        return result.report(evaluate_preference(model, tokenizer, seed=context.seed, count=count))


def _batch(tokenizer: CLIPTokenizer, seed: int, step: int, size: int) -> _Batch:
    scenes = scene_batch(derive_seed(seed, "preference"), step, size)
    rng = random_source(seed, "preference", "contradictions", step)
    stream = generator(seed, "preference", "corruptions", step)
    clean = to_network(scenes.images)
    kinds = random_kinds(size, stream)
    severity = torch.rand((2, size), generator=stream).sort(dim=0).values
    return _Batch(
        clean=clean,
        mild=corrupt(clean, severity[0], kinds, stream),
        strong=corrupt(clean, severity[1], kinds, stream),
        severity=severity,
        true_ids=encode(tokenizer, scenes.captions),
        false_ids=encode(tokenizer, [contradict(caption, rng) for caption in scenes.captions]),
    )


def _constructed_pairs(model: PreferenceModel, batch: _Batch, device: torch.device) -> Float[Tensor, ""]:
    images = torch.cat((batch.clean, batch.mild, batch.strong)).to(device, memory_format=torch.channels_last)
    clean, mild, strong = model.encode_image(images).chunk(3)
    true_ids, false_ids = batch.true_ids.to(device), batch.false_ids.to(device)
    tokens = torch.cat((clean, mild, strong, clean, mild))
    ids = torch.cat((true_ids, true_ids, true_ids, false_ids, false_ids))
    best, milder, stronger, wrong, mild_wrong = model.judge(tokens, ids).chunk(5)
    little, much = (_FULL_GAP * batch.severity).to(device)
    # What is left to see in a spoiled image still contradicts the false caption, but less surely.
    contradiction = torch.full_like(little, _CONTRADICTION_GAP)
    faded = _CONTRADICTION_GAP * (1.0 - batch.severity[0].to(device))
    losses = (
        _bradley_terry(best - milder, little),
        _bradley_terry(milder - stronger, much - little),
        _bradley_terry(best - stronger, much),
        _bradley_terry(best - wrong, contradiction),
        _bradley_terry(milder - mild_wrong, faded),
    )
    return torch.stack(losses).mean()


def _generated_pairs(
    model: PreferenceModel,
    tokenizer: CLIPTokenizer,
    trajectories: Trajectories,
    step: int,
    size: int,
    context: TrainingContext,
) -> Float[Tensor, ""]:
    """A later z0_pred of a generation is better than an earlier one of the same."""
    pairs = paired_frames(trajectories, generator(context.seed, "preference", "frames", step), size)
    ids = encode(tokenizer, pairs.captions).to(context.device)
    frames = to_network(pairs.images).to(context.device)
    early, late = model.judge(model.encode_image(frames), torch.cat((ids, ids))).chunk(2)
    return _bradley_terry(late - early, _FULL_GAP * pairs.progress.to(context.device)) / 2


def _bradley_terry(logit: Float[Tensor, " n"], gap: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Cross-entropy of P(first is better) = sigmoid(logit) against sigmoid(gap)."""
    return F.binary_cross_entropy_with_logits(logit, gap.sigmoid())


@torch.inference_mode()
def standardise(model: PreferenceModel, tokenizer: CLIPTokenizer, *, seed: int, count: int) -> None:
    """Mean 0 and standard deviation 1 over clean, mild and strong images with true captions.

    Args:
        model: its shift and scale are set.
        tokenizer: of its captions.
        seed: the run's; the scenes are drawn from it.
        count: of scenes.
    """
    batch = _batch(tokenizer, derive_seed(seed, "standardise"), 0, count)
    raw = torch.cat(
        [model.judge(model.encode_image(x), batch.true_ids) for x in (batch.clean, batch.mild, batch.strong)]
    )
    model.config = replace(model.config, mean=float(raw.mean()), std=float(raw.std()))


@torch.inference_mode()
def evaluate_preference(model: PreferenceModel, tokenizer: CLIPTokenizer, *, seed: int, count: int) -> dict[str, float]:
    """How often the better half wins, on scenes never trained on: by severity, and against contradictions.

    Args:
        model: standardised.
        tokenizer: of its captions.
        seed: the run's; the scenes are drawn from it.
        count: of scenes.
    """
    batch = _batch(tokenizer, derive_seed(seed, "held_out"), 0, count)
    stream = generator(seed, "preference", "held_out")
    best = model(batch.clean, batch.true_ids)
    figures = {"contradiction": float((best > model(batch.clean, batch.false_ids)).float().mean())}
    for severity in (0.1, 0.25, 0.5, 1.0):
        kinds = random_kinds(count, stream)
        spoiled = corrupt(batch.clean, torch.full((count,), severity), kinds, stream)
        figures[f"corrupted_{severity}"] = float((best > model(spoiled, batch.true_ids)).float().mean())
    return figures
