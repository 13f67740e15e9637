"""Training of the embedded aesthetic head on frozen CLIP embeddings: regression on how little an image is spoiled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Float
from open_clip.model import CLIP
from torch import Tensor
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
from addiffusion.embedded.making.trajectories import Trajectories, trajectories_of
from addiffusion.embedded.models.aesthetic import BEST_SCORE, AestheticHead, save_aesthetic
from addiffusion.embedded.models.clip import CLIP_WIDTH, image_embedding, load_clip
from addiffusion.embedded.world.corruptions import corrupt, random_kinds
from addiffusion.embedded.world.data import scene_chunks
from addiffusion.embedded.world.pixels import to_network
from addiffusion.errors import WeightsError
from addiffusion.seeds import derive_seed, generator

_STEPS: Final = 2_000
_BATCH: Final = 256
_POOL: Final = 6_000
"""Renders embedded once; a quarter stays clean."""
_HELD_OUT: Final = 600
_CLEAN_SHARE: Final = 0.25
_GENERATED_FLOOR: Final = 0.1
"""Severity of a finished generation: the decoder alone costs a little."""
_RECIPE: Final = Recipe(lr=2.0e-3, weight_decay=0.01)
_CHUNK: Final = 256

Labelled = tuple[Float[Tensor, "n e"], Float[Tensor, " n"]]
"""Embeddings and their target scores."""


class AestheticPart:
    """``aesthetic``: an MLP over the embedded CLIP, which must be trained (or shipped) before."""

    name = "aesthetic"

    def train(self, context: TrainingContext) -> PartReport:
        """Writes ``aesthetic``.

        Raises:
            WeightsError: ``clip`` is not trained yet.
        """
        clip, _ = load_clip(_trained_clip(context.out))
        clip.to(context.device)
        count = context.pool_size(cpu=_POOL)
        rendered = render_embeddings(clip, derive_seed(context.seed, "aesthetic"), count, context.device)
        grown = _generations(clip, trajectories_of(context), context.device)
        features, targets = (torch.cat(pair) for pair in zip(rendered, grown, strict=True))
        with initialised_by(context.seed, self.name):
            head = AestheticHead(CLIP_WIDTH)

        def loss(step: int) -> StepLoss:
            stream = generator(context.seed, "aesthetic", "rows", step)
            rows = torch.randint(len(features), (_BATCH,), generator=stream)
            total = F.mse_loss(head(features[rows].to(context.device)), targets[rows].to(context.device))
            return StepLoss(total=total / BEST_SCORE, metrics={"mse": total})

        objective = Objective(name=self.name, module=head, loss=loss, recipe=_RECIPE)
        result = run_training(objective, context, steps=context.steps(_STEPS))
        head.cpu().eval()
        save_aesthetic(head, context.out / "aesthetic")
        held_out = render_embeddings(
            clip, derive_seed(context.seed, "aesthetic", "held_out"), context.pool_size(cpu=_HELD_OUT), context.device
        )
        return result.report(evaluate_aesthetic(head, held_out))


def _trained_clip(out: Path) -> Path:
    folder = out / "clip"
    if not folder.is_dir():
        raise WeightsError(f"The part `aesthetic` needs {folder}; train the part `clip` first.", path=str(folder))
    return folder


@torch.inference_mode()
def render_embeddings(clip: CLIP, seed: int, count: int, device: torch.device) -> Labelled:
    """Embeddings of corrupted renders with 10 x (1 - severity).

    Args:
        clip: gives the embeddings.
        seed: of scenes and corruptions.
        count: of scenes.
        device: of ``clip``.
    """
    stream = generator(seed, "severity")
    features: list[Tensor] = []
    targets: list[Tensor] = []
    for chunk in scene_chunks(seed, count):
        size = len(chunk.images)
        severity = torch.rand(size, generator=stream)
        severity[torch.rand(size, generator=stream) < _CLEAN_SHARE] = 0.0
        spoiled = corrupt(to_network(chunk.images), severity, random_kinds(size, stream), stream)
        features.extend(_embed(clip, spoiled, device))
        targets.append(BEST_SCORE * (1.0 - severity))
    return torch.cat(features), torch.cat(targets)


@torch.inference_mode()
def _generations(clip: CLIP, trajectories: Trajectories, device: torch.device) -> Labelled:
    """Embeddings of decoded z0_preds; the severity falls evenly from 1 to the floor along a generation."""
    count, moments = trajectories.images.shape[:2]
    frames = to_network(trajectories.images.reshape(count * moments, *trajectories.images.shape[2:]))
    severity = torch.linspace(1.0, _GENERATED_FLOOR, moments).repeat(count)
    return torch.cat(list(_embed(clip, frames, device))), BEST_SCORE * (1.0 - severity)


def _embed(clip: CLIP, images: Float[Tensor, "n 3 h w"], device: torch.device) -> Iterator[Float[Tensor, "m e"]]:
    for part in torch.split(images, _CHUNK):
        yield image_embedding(clip, part.to(device)).cpu()


@torch.inference_mode()
def evaluate_aesthetic(head: AestheticHead, held_out: Labelled) -> dict[str, float]:
    """Correlation with the target, and the mean absolute error in points of 10."""
    features, targets = held_out
    scores = head(features)
    correlation = torch.corrcoef(torch.stack((scores, targets)))[0, 1]
    return {"correlation": float(correlation), "mean_error": float((scores - targets).abs().mean())}
