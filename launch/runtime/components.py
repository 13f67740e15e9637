"""The components of a run: what trains, evaluates or draws is the same for one process and for Ray."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from addiffusion.backbones.widths import feature_widths
from addiffusion.baseline import Baseline
from addiffusion.config import Config, SamplerSection
from addiffusion.metrics import Meters, NoMeters
from addiffusion.observation.layout import Layout, clip_layout, latent_layout
from addiffusion.rollouts import Rollouts
from addiffusion.scorers.base import Scoring
from learner.state import Learner


def _no_meters(_run: str) -> Meters:
    return NoMeters()


def _any_schedule(_sampler: SamplerSection, _key: str) -> None:
    """Every schedule can be followed."""


def _no_reports(_folder: Path) -> None:
    """Nothing reports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """Rollouts, scoring and learner of a run, in this process or as Ray actors."""

    rollouts: Rollouts
    scoring: Scoring
    learner: Learner
    meters: Callable[[str], Meters] = _no_meters
    """Carries the metrics of the run called so."""
    hosting: Callable[[Baseline], Rollouts] | None = None
    """Has baselines drawn by the rollout workers; None: this process draws them."""
    lay_out: Callable[[SamplerSection, str], None] = _any_schedule
    """Has a schedule laid out on the loaded model, or refused (ConfigError) by the key that says its steps."""
    devices: str = ""
    """What each role works on, where a cluster had to be asked for it."""
    keep_reports: Callable[[Path], object] = _no_reports
    """Has what Ray and RLlib report written to a file in this folder."""

    def baseline(self, baseline: Baseline) -> Rollouts:
        """Who draws a baseline's images."""
        return baseline.make(self.scoring) if self.hosting is None else self.hosting(baseline)


Roles: TypeAlias = Callable[[Config], AbstractContextManager[Components]]
"""What puts the components of a configuration together, for the length of a block."""


def observation_layout(config: Config, scoring: Scoring) -> Layout:
    """Slices of phi with the scorers and the backbone in use."""
    seen = config.observation
    if seen.kind == "clip":
        return clip_layout(clip_width=scoring.clip_width, timestep_width=seen.timestep_width, setting=seen.setting)
    widths = feature_widths(config.backbone)
    return latent_layout(
        middle_width=widths.middle,
        text_width=widths.text,
        timestep_width=seen.timestep_width,
        setting=seen.setting,
        previews=bool(seen.previews),
    )


def observation_width(config: Config, scoring: Scoring) -> int:
    """p, the width of phi with the scorers and the backbone in use."""
    return observation_layout(config, scoring).width


def unpaid(config: Config) -> Config:
    """The same run with a reward that needs neither references nor the scores of decisions: for images alone.

    Its weights stay: they say which of an image's attempts goes on.
    """
    dropped = tuple(dict.fromkeys((*config.reward.drop, "quality", "terminal")))
    reward = config.reward.model_copy(update={"drop": dropped})
    return config.model_copy(update={"reward": reward})
