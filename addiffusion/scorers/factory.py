"""Scorers as ``scorers`` of the configuration asks for them."""

from __future__ import annotations

from addiffusion.config import ScorersSection
from addiffusion.scorers.base import Scorer, Scoring
from addiffusion.scorers.cache import CachedScoring
from addiffusion.scorers.embedded import embedded_suite
from addiffusion.scorers.plugins import load_plugin
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
    return CachedScoring(load_suite(section, image_reward), capacity=section.cache_images)


def load_suite(section: ScorersSection, image_reward: Scorer | None = None) -> ScorerSuite:
    """The suite of ``section`` without a cache; see ``load_scoring``."""
    suite = embedded_suite(section) if section.kind == "embedded" else _pretrained(section, image_reward)
    for path in section.extra:
        suite.add(load_plugin(path, suite.device))
    return suite


def _pretrained(section: ScorersSection, image_reward: Scorer | None) -> ScorerSuite:
    from addiffusion.scorers.pretrained import pretrained_suite  # noqa: PLC0415 - its libraries take seconds to import

    return pretrained_suite(section, image_reward)
