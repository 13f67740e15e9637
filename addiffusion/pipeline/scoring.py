"""Scorers of a policy that looks at decoded images."""

from __future__ import annotations

from typing import Any

from addiffusion.errors import ArgumentError
from addiffusion.pipeline.policy import Policy
from addiffusion.scorers.base import Scoring, Unscored


def scoring_of(pipe: Any, policy: Policy) -> Scoring:
    """What scores the previews of a policy; nothing, where it decides by the denoiser's own features.

    The embedded scorers are loaded once. Larger ones are for the user to give: they are many gigabytes.

    Raises:
        ArgumentError: they were not given.
        MissingExtraError: their libraries are not installed.
        WeightsError: they can't be loaded.
    """
    config = policy.trained_with
    if not config.observation.scores_images:
        return Unscored()
    if pipe.scoring is not None:
        return pipe.scoring
    if config.scorers.kind != "embedded":
        section = config.scorers
        raise ArgumentError(
            f"This policy looks at decoded images by CLIP ({section.clip.model}), the aesthetic predictor, DINO "
            f"({section.dino.model}) and ImageReward: set pipe.scoring = "
            "addiffusion.scorers.factory.load_scoring(policy.trained_with.scorers), or use a policy of "
            "observation.kind=latent that never looks, which needs none.",
            observation=config.observation.kind,
        )
    from addiffusion.scorers.factory import load_scoring  # noqa: PLC0415 - its libraries take seconds to import

    pipe.scoring = load_scoring(config.scorers)
    return pipe.scoring
