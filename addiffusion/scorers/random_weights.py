"""The full-size suite with random weights: what it costs is real, what it says means nothing."""

from __future__ import annotations

from typing import Final

import open_clip
from transformers import BertTokenizer

from addiffusion.config import ScorersSection
from addiffusion.devices import resolve_device
from addiffusion.scorers.aesthetic import AestheticScorer, LaionHead
from addiffusion.scorers.clip import ClipScorer, tower_of
from addiffusion.scorers.dino import DinoFeatures, build_dino_model, preprocessing_of
from addiffusion.scorers.image_reward import ImageRewardModel, ImageRewardScorer, ImageRewardShape
from addiffusion.scorers.suite import ScorerSuite

_WORDS: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def random_suite(section: ScorersSection) -> ScorerSuite:
    """CLIP, aesthetic, ImageReward and DINO in the shapes that ``section`` names, for benchmarks without downloads."""
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
