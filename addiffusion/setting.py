"""The setting of an episode: all that may differ between two images of one batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from addiffusion.config import SamplerSection
from addiffusion.config.sampling import Solver, Spacing
from addiffusion.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What an episode is drawn with; None takes what its run or engine is configured with.

    The price is not part of it: nothing but the reward and the observation knows of one, and a ticket carries it.
    """

    solver: Solver | None = None
    num_steps: int | None = None
    """N: steps of the base schedule."""
    spacing: Spacing | None = None
    finish_steps: int | None = None
    guidance_scale: float | None = None
    """1 or less: without guidance, at half the cost of a guided image."""
    negative_prompt: str | None = None
    max_cost: float | None = None
    """Most that the episode may cost, in guided passes; infinity allows anything."""

    def __post_init__(self) -> None:
        """Refuse what nothing could be drawn with.

        Raises:
            ConfigError: a number is out of its range.
        """
        limits = {"num_steps": 2, "finish_steps": 0, "guidance_scale": 0, "max_cost": 0}
        for name, least in limits.items():
            value = getattr(self, name)
            if value is not None and not (value >= least and (math.isfinite(value) or name == "max_cost")):
                raise ConfigError(f"The setting {name}={value:g} can't be used: give {least} or more.", **{name: value})

    def sampler(self, own: SamplerSection) -> SamplerSection:
        """The sampler of this setting.

        Args:
            own: the run's or engine's.

        Raises:
            ConfigError: the schedule is over before the forced steps are.
        """
        names = ("solver", "num_steps", "spacing", "finish_steps")
        changes = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        sampler = own.model_copy(update=changes)
        if sampler.warmup_steps >= sampler.num_steps:
            raise ConfigError(
                f"The setting num_steps={sampler.num_steps} leaves no decision after sampler.warmup_steps="
                f"{sampler.warmup_steps}: give more steps.",
                num_steps=sampler.num_steps,
            )
        return sampler
