"""The scorers of the embedded world: CLIP, aesthetic, preference and DINO models, and the exact checker as a metric."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from addiffusion.assets import weights_path
from addiffusion.config import ScorersSection
from addiffusion.devices import resolve_device
from addiffusion.embedded.models.aesthetic import load_aesthetic
from addiffusion.embedded.models.clip import CLIP_WIDTH, load_clip
from addiffusion.embedded.models.dino import load_dino
from addiffusion.embedded.models.preference import PreferenceModel, load_preference
from addiffusion.embedded.world.captions import parse_caption
from addiffusion.embedded.world.checker import check
from addiffusion.embedded.world.scenes import IMAGE_SIZE
from addiffusion.records import METRIC_NAMES
from addiffusion.scorers.aesthetic import AestheticScorer
from addiffusion.scorers.base import ScorerSpec
from addiffusion.scorers.clip import ClipScorer, ClipTower, Tokenize
from addiffusion.scorers.dino import DinoFeatures
from addiffusion.scorers.images import ImageBatch
from addiffusion.scorers.suite import ScorerSuite
from addiffusion.text_cache import TextCache, one_by_one


def embedded_suite(section: ScorersSection, weights: Path | None = None) -> ScorerSuite:
    """All scorers of the embedded world on one device.

    Args:
        section: device and rows of a pass.
        weights: a folder that `addiffusion embedded train` wrote; None is the shipped one.

    Raises:
        ConfigError: the device is unknown.
        WeightsError: weights are missing or do not fit.
    """
    device = resolve_device(section.device, key="scorers.device")
    clip = embedded_tower(device, weights)
    return ScorerSuite(
        clip=clip,
        dino=embedded_dino(device, weights),
        scorers=(
            ClipScorer(clip),
            embedded_aesthetic(clip, device, weights),
            embedded_preference(clip.tokenize, device, weights),
            *scene_scorers(),
        ),
        device=device,
        batch_images=section.batch_images,
        image_size=IMAGE_SIZE,
    )


def embedded_tower(device: torch.device, weights: Path | None = None) -> ClipTower:
    """The CLIP of the embedded world.

    Raises:
        WeightsError: its weights are missing or do not fit.
    """
    model, tokenize = load_clip(_part(weights, "clip"))
    tower = ClipTower(model, tokenize=tokenize, prepare=network_view, device=device)
    assert tower.width == CLIP_WIDTH
    return tower


def embedded_dino(device: torch.device, weights: Path | None = None) -> DinoFeatures:
    """The feature model of the embedded world.

    Raises:
        WeightsError: its weights are missing or do not fit.
    """
    return DinoFeatures(load_dino(_part(weights, "dino")), prepare=network_view, device=device)


def embedded_aesthetic(tower: ClipTower, device: torch.device, weights: Path | None = None) -> AestheticScorer:
    """The aesthetic head of the embedded world; 10 is a clean picture.

    Raises:
        WeightsError: its weights are missing or do not fit.
    """
    return AestheticScorer(tower, load_aesthetic(_part(weights, "aesthetic"), clip_width=tower.width).to(device))


def embedded_preference(tokenize: Tokenize, device: torch.device, weights: Path | None = None) -> PreferenceScorer:
    """The preference model of the embedded world.

    Raises:
        WeightsError: its weights are missing or do not fit.
    """
    return PreferenceScorer(load_preference(_part(weights, "preference")), tokenize, device)


def _part(weights: Path | None, name: str) -> Path:
    return weights_path(name) if weights is None else weights / name


def scene_scorers() -> tuple[SceneScorer, SceneScorer]:
    """``scene_soft``, the share of a caption's demands that is met, and ``scene_strict``: 1 if all are, else 0."""
    soft, strict = (
        ScorerSpec(name=name, unit=unit, low=0.0, high=1.0, batched=False)
        for name, unit in zip(METRIC_NAMES, ("share of demands met", "1 if all demands are met"), strict=True)
    )
    return SceneScorer(soft), SceneScorer(strict)


class PreferenceScorer:
    """The embedded preference model in fp32; it reads the ids of the embedded tokenizer."""

    spec = ScorerSpec(name="image_reward", unit="standard deviations", low=-3.0, high=3.0)

    def __init__(self, model: PreferenceModel, tokenize: Tokenize, device: torch.device) -> None:
        self._model = model.eval().to(device)
        self._token_ids = TextCache(one_by_one(lambda prompt: tokenize([prompt])[0].to(device)))

    @torch.inference_mode()
    def score(self, images: ImageBatch, prompts: Sequence[str]) -> Float[Tensor, " n"]:
        """(n,) standardised over clean and corrupted renders."""
        return self._model(network_view(images), torch.stack(self._token_ids.rows(prompts)))


class SceneScorer:
    """One number of the checker's report: a metric, never part of a reward. Both numbers share one check."""

    def __init__(self, spec: ScorerSpec) -> None:
        self.spec = spec

    def score(self, images: ImageBatch, prompts: Sequence[str]) -> Float[Tensor, " n"]:
        """(n,) in [0, 1].

        Raises:
            PromptError: a prompt is outside the caption grammar.
        """
        reports = images.once(("scene", tuple(prompts)), lambda: _check(images, prompts))
        return reports[:, METRIC_NAMES.index(self.spec.name)]


def network_view(images: ImageBatch) -> Float[Tensor, "n 3 h w"]:
    """float32 in [-1, 1]: the arithmetic of ``addiffusion.embedded.world.pixels.to_network``, to the last bit."""
    return images.once("network", lambda: images.pixels.to(torch.float32).div_(127.5).sub_(1.0))


def _check(images: ImageBatch, prompts: Sequence[str]) -> Float[Tensor, "n 2"]:
    pixels = images.pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    reports = [check(image, parse_caption(prompt)) for image, prompt in zip(pixels, prompts, strict=True)]
    return torch.tensor([[report.soft, float(report.strict)] for report in reports])
