"""Training of the embedded CLIP: contrast with hard negative captions and corrupted copies of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Bool, Float, Int
from open_clip.model import CLIP
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
from addiffusion.embedded.models.clip import (
    build_clip,
    image_embedding,
    retrieval,
    save_clip,
    similarities,
    text_embedding,
)
from addiffusion.embedded.models.tokenizer import build_tokenizer, encode
from addiffusion.embedded.world.captions import vocabulary
from addiffusion.embedded.world.contradictions import contradict
from addiffusion.embedded.world.corruptions import Corruption, corrupt, random_kinds
from addiffusion.embedded.world.data import scene_batch
from addiffusion.embedded.world.data import stream as random_source
from addiffusion.embedded.world.pixels import to_network
from addiffusion.seeds import derive_seed, generator

_STEPS: Final = 2_100
_BATCH: Final = 80
_BATCH_CUDA: Final = 512
_CORRUPTED_SHARE: Final = 3
"""One corrupted copy for this many images."""
_LEAST_SEVERITY: Final = 0.15
"""Below it a corrupted copy is as good as its original."""
_SENSOR_SEVERITY: Final = 0.15
"""Largest severity of the light noise and blur that every image may have."""
_RECIPE: Final = Recipe(lr=1.5e-3, weight_decay=0.05, betas=(0.9, 0.98), warmup_steps=60, ema_decay=0.0)
"""No weight average: it would not fit the running statistics of the batch normalisation."""
_HELD_OUT: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    images: Float[Tensor, "n 3 h w"]
    spoiled: Float[Tensor, "m 3 h w"]
    """Corrupted copies of the first ``m`` images."""
    captions: tuple[str, ...]
    contradictions: tuple[str, ...]


class ClipPart:
    """``clip``: images and captions into one space."""

    name = "clip"

    def train(self, context: TrainingContext) -> PartReport:
        """Writes the open_clip folder ``clip``."""
        tokenizer = build_tokenizer(vocabulary())
        steps = context.steps(_STEPS)
        size = context.batch_size(cpu=_BATCH, cuda=_BATCH_CUDA)
        with initialised_by(context.seed, self.name):
            model = build_clip(len(tokenizer))

        def loss(step: int) -> StepLoss:
            return _contrast(model, tokenizer, _batch(context.seed, step, size), context.device)

        result = run_training(Objective(name=self.name, module=model, loss=loss, recipe=_RECIPE), context, steps=steps)
        model.cpu().eval()
        save_clip(model, tokenizer, context.out / "clip")
        return result.report(evaluate_clip(model, tokenizer, seed=context.seed, count=context.pool_size(cpu=_HELD_OUT)))


def _batch(seed: int, step: int, size: int) -> _Batch:
    scenes = scene_batch(derive_seed(seed, "clip"), step, size)
    rng = random_source(seed, "clip", "contradictions", step)
    stream = generator(seed, "clip", "corruptions", step)
    clean = to_network(scenes.images)
    count = max(1, size // _CORRUPTED_SHARE)
    severity = _LEAST_SEVERITY + (1 - _LEAST_SEVERITY) * torch.rand(count, generator=stream)
    return _Batch(
        images=_sensor(clean, stream),
        spoiled=corrupt(clean[:count], severity, random_kinds(count, stream), stream),
        captions=scenes.captions,
        contradictions=tuple(contradict(caption, rng) for caption in scenes.captions),
    )


def _sensor(images: Float[Tensor, "n 3 h w"], stream: torch.Generator) -> Float[Tensor, "n 3 h w"]:
    """Half the images as they are, the others slightly noisy or blurred, so that a decoder's texture is no clue."""
    count = len(images)
    severity = (torch.rand(count, generator=stream) * 2 - 1).clamp_min(0) * _SENSOR_SEVERITY
    mild = torch.tensor([list(Corruption).index(Corruption.BLUR), list(Corruption).index(Corruption.NOISE)])
    return corrupt(images, severity, mild[torch.randint(2, (count,), generator=stream)], stream)


def _contrast(model: CLIP, tokenizer: CLIPTokenizer, batch: _Batch, device: torch.device) -> StepLoss:
    """Symmetric InfoNCE: captions compete with contradictions, images with their corrupted copies."""
    texts = (*batch.captions, *batch.contradictions)
    text = text_embedding(model, encode(tokenizer, texts).to(device))
    stack = torch.cat((batch.images, batch.spoiled)).to(device, memory_format=torch.channels_last)
    image = image_embedding(model, stack)
    count = len(batch.captions)
    right = torch.arange(count, device=device)
    to_text = similarities(image[:count], text, model.logit_scale)
    to_image = similarities(text[:count], image, model.logit_scale)
    same = _same_text(batch.captions, texts).to(device)
    to_text = to_text.masked_fill(same, -torch.inf)
    to_image = to_image.masked_fill(F.pad(same[:, :count], (0, len(batch.spoiled))), -torch.inf)
    total = (F.cross_entropy(to_text, right) + F.cross_entropy(to_image, right)) / 2
    hit = (to_text.argmax(dim=1) == right).float().mean()
    return StepLoss(total=total, metrics={"loss": total, "r_at_1": hit})


def _same_text(captions: Sequence[str], candidates: Sequence[str]) -> Bool[Tensor, "n m"]:
    """True where a candidate says the same as another image's caption: it is true there, so it is no negative."""
    numbers: dict[str, int] = {}
    ids: Int[Tensor, " m"] = torch.tensor([numbers.setdefault(text, len(numbers)) for text in candidates])
    same = ids[: len(captions), None] == ids[None, :]
    return same & ~torch.eye(len(captions), len(candidates), dtype=torch.bool)


@torch.inference_mode()
def evaluate_clip(model: CLIP, tokenizer: CLIPTokenizer, *, seed: int, count: int) -> dict[str, float]:
    """R@1 of 100 captions (fewer when ``count`` is), and how often the true caption beats its hard negative.

    Args:
        model: the trained towers.
        tokenizer: of its captions.
        seed: the run's; its held-out scenes are never trained on.
        count: of scenes.
    """
    held_out = scene_batch(derive_seed(seed, "clip", "held_out"), 0, count)
    rng = random_source(seed, "clip", "held_out", "contradictions")
    image = image_embedding(model, to_network(held_out.images))
    text = text_embedding(model, encode(tokenizer, held_out.captions))
    false = text_embedding(model, encode(tokenizer, [contradict(caption, rng) for caption in held_out.captions]))
    ahead = (image * text).sum(dim=1) > (image * false).sum(dim=1)
    return {
        "r_at_1_of_100": retrieval(image, text, candidates=min(100, count)),
        "hard_negative": float(ahead.float().mean()),
    }
