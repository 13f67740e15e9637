"""Training of the embedded feature model: two views of one render against all others (arXiv:2002.05709 Eq. 1)."""

from __future__ import annotations

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (the name everyone knows it by)

from addiffusion.embedded.making.part import (
    Objective,
    PartReport,
    Recipe,
    StepLoss,
    TrainingContext,
    initialised_by,
    run_training,
)
from addiffusion.embedded.models.dino import build_dino, save_dino
from addiffusion.embedded.world.corruptions import Corruption, corrupt, random_kinds
from addiffusion.embedded.world.data import scene_batch
from addiffusion.embedded.world.pixels import to_network
from addiffusion.seeds import derive_seed, generator

_STEPS: Final = 1_500
_BATCH: Final = 96
_BATCH_CUDA: Final = 512
_RECIPE: Final = Recipe(lr=1.0e-3, weight_decay=0.05, warmup_steps=60)
_TEMPERATURE: Final = 0.1
_SHIFT_PX: Final = 2
_COLOUR_JITTER: Final = 0.06
_VIEW_SEVERITY: Final = 0.12
"""Largest severity of the blur or noise of a view."""
_SPOILED_SHARE: Final = 3
"""One spoiled copy, an extra negative of its own render, for this many renders."""
_LEAST_SEVERITY: Final = 0.25
_HELD_OUT: Final = 500


class DinoPart:
    """``dino``: features whose cosine says how alike two pictures are."""

    name = "dino"

    def train(self, context: TrainingContext) -> PartReport:
        """Writes ``dino``."""
        steps = context.steps(_STEPS)
        size = context.batch_size(cpu=_BATCH, cuda=_BATCH_CUDA)
        with initialised_by(context.seed, self.name):
            model = build_dino()

        def loss(step: int) -> StepLoss:
            clean = to_network(scene_batch(derive_seed(context.seed, "dino"), step, size).images)
            return _contrast(model, clean, generator(context.seed, "dino", "views", step), context.device)

        result = run_training(Objective(name=self.name, module=model, loss=loss, recipe=_RECIPE), context, steps=steps)
        model.cpu().eval()
        save_dino(model, context.out / "dino")
        return result.report(evaluate_dino(model, seed=context.seed, count=context.pool_size(cpu=_HELD_OUT)))


def _contrast(
    model: nn.Module, clean: Float[Tensor, "n 3 h w"], stream: torch.Generator, device: torch.device
) -> StepLoss:
    """InfoNCE from view to view; spoiled copies are further negatives: a blurred image is no match for a sharp one."""
    count, extra = len(clean), max(1, len(clean) // _SPOILED_SHARE)
    severity = _LEAST_SEVERITY + (1 - _LEAST_SEVERITY) * torch.rand(extra, generator=stream)
    spoiled = corrupt(clean[:extra], severity, random_kinds(extra, stream), stream)
    stack = torch.cat((_view(clean, stream), _view(clean, stream), spoiled)).to(device)
    features = F.normalize(model(stack), dim=1)
    logits = features[:count] @ features[count:].T / _TEMPERATURE
    right = torch.arange(count, device=device)
    total = F.cross_entropy(logits, right)
    return StepLoss(total=total, metrics={"loss": total, "match": (logits.argmax(dim=1) == right).float().mean()})


def _view(images: Float[Tensor, "n 3 h w"], stream: torch.Generator) -> Float[Tensor, "n 3 h w"]:
    """A random shift of the batch, and per image a colour jitter and slight blur or noise."""
    count, _, height, width = images.shape
    top, left = torch.randint(2 * _SHIFT_PX + 1, (2,), generator=stream).numpy().tolist()
    padded = F.pad(images, (_SHIFT_PX,) * 4, mode="reflect")
    shifted = padded[..., top : top + height, left : left + width]
    gain = 1.0 + _COLOUR_JITTER * torch.randn((count, 3, 1, 1), generator=stream)
    offset = _COLOUR_JITTER * torch.randn((count, 3, 1, 1), generator=stream)
    mild = torch.tensor([list(Corruption).index(Corruption.BLUR), list(Corruption).index(Corruption.NOISE)])
    kinds = mild[torch.randint(2, (count,), generator=stream)]
    severity = _VIEW_SEVERITY * torch.rand(count, generator=stream)
    return corrupt((shifted * gain + offset).clamp(-1.0, 1.0), severity, kinds, stream)


@torch.inference_mode()
def evaluate_dino(model: nn.Module, *, seed: int, count: int) -> dict[str, float]:
    """Retrieval of a view among 100 renders, and the mean cosine to copies of growing severity."""
    clean = to_network(scene_batch(derive_seed(seed, "dino", "held_out"), 0, count).images)
    stream = generator(seed, "dino", "held_out")
    features = F.normalize(model(clean), dim=1)
    views = F.normalize(model(_view(clean, stream)), dim=1)
    hits = (views[:100] @ features[:100].T).argmax(dim=1) == torch.arange(min(100, count))
    figures = {"view_of_100": float(hits.float().mean())}
    for severity in (0.1, 0.3, 0.6, 1.0):
        spoiled = corrupt(clean, torch.full((count,), severity), random_kinds(count, stream), stream)
        cosine = (F.normalize(model(spoiled), dim=1) * features).sum(dim=1)
        figures[f"cosine_{severity}"] = float(cosine.mean())
    return figures
