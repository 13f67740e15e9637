"""What the benchmarks of the rollout loop need before they can start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from addiffusion.backbones import load_backbone
from addiffusion.backbones.base import Backbone
from addiffusion.config import Config
from addiffusion.configuration.files import load_config
from addiffusion.prompts import load_prompts
from addiffusion.records import Prompt
from addiffusion.scorers.base import Scoring
from addiffusion.scorers.factory import load_suite
from launch.runtime.components import observation_width, unpaid


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectSetup:
    """A loop ready to run."""

    config: Config
    prompts: tuple[Prompt, ...]
    backbone: Backbone
    scoring: Scoring
    width: int
    """Width of phi."""


def collect_setup(files: Sequence[Path], overrides: Sequence[str], *, count: int) -> CollectSetup:
    """Load models and prompts; the reward is one that needs neither references nor the decisions' scores.

    Raises:
        UsageError: something can't be used; one sentence says what and how to put it right.
    """
    config = unpaid(load_config(files, overrides))
    scoring = load_suite(config.scorers)
    return CollectSetup(
        config=config,
        prompts=load_prompts(config.prompts, split="train", count=count, seed=config.run.seed),
        backbone=load_backbone(config.backbone),
        scoring=scoring,
        width=observation_width(config, scoring),
    )


def finish_setup(files: Sequence[Path], overrides: Sequence[str], *, count: int) -> tuple[Config, tuple[Prompt, ...]]:
    """Configuration and held-out prompts.

    Raises:
        UsageError: something can't be used; one sentence says what and how to put it right.
    """
    config = unpaid(load_config(files, overrides))
    split = config.prompts.test_split
    return config, load_prompts(config.prompts, split=split, count=count, seed=config.run.seed)
