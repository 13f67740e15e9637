"""The suites that configuration can ask for."""

from __future__ import annotations

from addiffusion.config import ScorersSection
from addiffusion.devices import resolve_device
from addiffusion.embedded.world.scenes import IMAGE_SIZE
from addiffusion.scorers.aesthetic import embedded_aesthetic
from addiffusion.scorers.base import Scorer, Scoring
from addiffusion.scorers.clip import ClipScorer, embedded_tower
from addiffusion.scorers.dino import embedded_dino
from addiffusion.scorers.own import load_own
from addiffusion.scorers.preference import embedded_preference
from addiffusion.scorers.remembered import RememberedScoring
from addiffusion.scorers.scene import scene_scorers
from addiffusion.scorers.suite import ScorerSuite


def load_scoring(section: ScorersSection, image_reward: Scorer | None = None) -> Scoring:
    """The suite of ``section`` behind its cache: what every run scores with.

    Args:
        section: which models, where.
        image_reward: stands in for ImageReward where ``backend: package`` runs it in another process.

    Raises:
        ConfigError: a model or device is unknown, or the package backend has no process to run in.
        WeightsError: weights are missing or do not fit; one sentence names the file and where to get it.
    """
    return RememberedScoring(load_suite(section, image_reward), capacity=section.cache_images)


def load_suite(section: ScorersSection, image_reward: Scorer | None = None) -> ScorerSuite:
    """The suite of ``section`` without a cache; see ``load_scoring``."""
    suite = _embedded(section) if section.kind == "embedded" else _pretrained(section, image_reward)
    for path in section.extra:
        suite.add(load_own(path, suite.device))
    return suite


def _pretrained(section: ScorersSection, image_reward: Scorer | None) -> ScorerSuite:
    from addiffusion.scorers.pretrained import pretrained_suite  # noqa: PLC0415 - its libraries take seconds to import

    return pretrained_suite(section, image_reward)


def _embedded(section: ScorersSection) -> ScorerSuite:
    device = resolve_device(section.device, key="scorers.device")
    clip = embedded_tower(device)
    return ScorerSuite(
        clip=clip,
        dino=embedded_dino(device),
        scorers=(
            ClipScorer(clip),
            embedded_aesthetic(clip, device),
            embedded_preference(clip.tokenize, device),
            *scene_scorers(),
        ),
        device=device,
        batch_images=section.batch_images,
        image_size=IMAGE_SIZE,
    )
