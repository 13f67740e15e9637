"""The suite of full-size scorers."""

from __future__ import annotations

from addiffusion.config import ScorersSection
from addiffusion.devices import resolve_device
from addiffusion.errors import ConfigError
from addiffusion.scorers.aesthetic import load_laion
from addiffusion.scorers.base import Scorer
from addiffusion.scorers.clip import ClipScorer, load_tower
from addiffusion.scorers.dino import load_timm_dino
from addiffusion.scorers.hps import load_hps
from addiffusion.scorers.image_reward import load_image_reward
from addiffusion.scorers.pickscore import load_pickscore
from addiffusion.scorers.suite import ScorerSuite

_METRIC_LOADERS = {"hps": load_hps, "pickscore": load_pickscore}


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
