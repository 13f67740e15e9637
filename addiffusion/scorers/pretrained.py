"""The suite of full-size scorers: with the weights that configuration names, or with random ones."""

from __future__ import annotations

from typing import Final

import open_clip
from transformers import BertTokenizer

from addiffusion.config import ScorersSection
from addiffusion.devices import resolve_device
from addiffusion.errors import ConfigError
from addiffusion.scorers.aesthetic import AestheticScorer, LaionHead, load_laion
from addiffusion.scorers.base import Scorer
from addiffusion.scorers.clip import ClipScorer, load_tower, tower_of
from addiffusion.scorers.dino import DinoFeatures, build_dino_model, load_timm_dino, preprocessing_of
from addiffusion.scorers.hps import load_hps
from addiffusion.scorers.image_reward import ImageRewardModel, ImageRewardScorer, ImageRewardShape, load_image_reward
from addiffusion.scorers.pickscore import load_pickscore
from addiffusion.scorers.suite import ScorerSuite

_METRIC_LOADERS: Final = {"hps": load_hps, "pickscore": load_pickscore}
_WORDS: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""Of a tokenizer without a vocabulary: every word is [UNK]."""


def pretrained_suite(section: ScorersSection, image_reward: Scorer | None = None) -> ScorerSuite:
    """The models that ``section`` names; ``image_reward`` stands in for the re-hosted one.

    Raises:
        ConfigError: a model or device is unknown, or the package backend has no process to run in.
        WeightsError: weights are missing or do not fit.
    """
    if section.image_reward.backend == "package" and image_reward is None:
        raise ConfigError(
            "scorers.image_reward.backend=package runs ImageReward in a process of its own, which only the reward "
            "service can start: set cluster.mode=ray, or scorers.image_reward.backend=rehosted."
        )
    device = resolve_device(section.device, key="scorers.device")
    clip = load_tower(section, device)
    return ScorerSuite(
        clip=clip,
        dino=load_timm_dino(section, device),
        scorers=(
            ClipScorer(clip),
            load_laion(section, clip, device),
            image_reward or load_image_reward(section, device),
            *(_METRIC_LOADERS[name](section, device) for name in section.metrics),
        ),
        device=device,
        batch_images=section.batch_images,
    )


def random_suite(section: ScorersSection) -> ScorerSuite:
    """CLIP, aesthetic, ImageReward and DINO in the shapes that ``section`` names, with random weights.

    For benchmarks without downloads: what it costs is real, what it says means nothing.
    """
    device = resolve_device(section.device, key="scorers.device")
    clip = tower_of(section.clip.model, open_clip.create_model(section.clip.model), device=device)
    dino = build_dino_model(section.dino)
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(_WORDS)})
    return ScorerSuite(
        clip=clip,
        dino=DinoFeatures(dino, prepare=preprocessing_of(dino, section.dino.image_size), device=device),
        scorers=(
            ClipScorer(clip),
            AestheticScorer(clip, LaionHead().eval().to(device)),
            ImageRewardScorer(ImageRewardModel(ImageRewardShape()), tokenizer, device),
        ),
        device=device,
        batch_images=section.batch_images,
    )
