"""The original ImageReward package as a Ray actor of another environment, behind the scorer port."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import ray
import torch
from jaxtyping import Float
from ray import cloudpickle
from ray.actor import ActorHandle
from ray.exceptions import RayError
from torch import Tensor

from addiffusion.config import ScorersSection
from addiffusion.errors import ConfigError, ScorerError
from addiffusion.scorers.image_reward import SPEC, package_files
from addiffusion.scorers.images import ImageBatch
from reward_service.image_reward import package


class IsolatedImageReward:
    """Scores by the package. Its process ends with the one that made this, and shares that one's device."""

    spec = SPEC

    def __init__(self, section: ScorersSection) -> None:
        """Start the process; the model loads while other scorers do.

        Raises:
            ConfigError: the environment's interpreter is missing.
            WeightsError: the checkpoint is missing.
        """
        python = section.image_reward.python or ""
        if not Path(python).is_file():
            raise ConfigError(
                f"scorers.image_reward.python={python} is no interpreter: make the environment with "
                "scripts/image_reward_env.sh FOLDER and give FOLDER/bin/python, or set "
                "scorers.image_reward.backend=rehosted.",
                python=python,
            )
        weights, med_config = package_files(section)
        cloudpickle.register_pickle_by_value(package)  # that environment does not have this project
        options: dict[str, Any] = {
            "num_cpus": 0,
            "num_gpus": 0,
            "max_restarts": -1,
            "runtime_env": {"py_executable": python},
        }
        actor = ray.remote(package.PackageImageReward).options(**options)
        self._actor = cast(
            "ActorHandle[Any]", actor.remote(str(weights), med_config and str(med_config), section.device)
        )
        self._timeout_s = section.pass_timeout_s

    def score(self, images: ImageBatch, prompts: Sequence[str]) -> Float[Tensor, " n"]:
        """Standardised over the images of its training set, as the re-hosted model's.

        Raises:
            ScorerError: the package failed, or did not answer within ``scorers.pass_timeout_s``.
        """
        pixels = images.pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        try:
            scores = ray.get(self._actor.score.remote(pixels, tuple(prompts)), timeout=self._timeout_s)
        except RayError as error:
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise ScorerError(f"the image-reward package failed in its own process: {reason}.") from error
        return torch.from_numpy(scores.copy())
