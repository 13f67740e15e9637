"""What the policy is paid for: weights, scales and prices of the reward."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from addiffusion.config.section import Section

Price = Annotated[float, Field(gt=0, le=1e6)]


class Weights(Section):
    """Weights of the quality terms."""

    clip: float = Field(default=1.0, ge=0, le=1e6)
    """Weight of the normalised CLIP score."""
    aesthetic: float = Field(default=0.5, ge=0, le=1e6)
    """Weight of the normalised aesthetic score."""
    image_reward: float = Field(default=0.8, ge=0, le=1e6)
    """Weight of the normalised preference score."""
    dino: float = Field(default=0.2, ge=0, le=1e6)
    """Weight of DINO similarity (phase1: to the previous image; paired: to the full-length image)."""


class Scales(Section):
    """Normalisers of the quality terms."""

    clip: float = Field(default=0.05, gt=0, le=1e6)
    """Change of CLIP score (cosine) that counts as one unit of quality."""
    aesthetic: float = Field(default=0.3, gt=0, le=1e6)
    """Change of aesthetic score that counts as one unit of quality."""
    image_reward: float = Field(default=0.2, gt=0, le=1e6)
    """Change of preference score that counts as one unit of quality."""
    dino: float = Field(default=0.1, gt=0, le=1e6)
    """Change of DINO similarity that counts as one unit of quality (`paired` only)."""


class TerminalWeights(Section):
    """Weights of the final scores."""

    clip: float = Field(default=2.0, ge=0, le=1e6)
    """`phase1`: weight of the final CLIP score."""
    aesthetic: float = Field(default=1.0, ge=0, le=1e6)
    """`phase1`: weight of the final aesthetic score."""
    image_reward: float = Field(default=1.5, ge=0, le=1e6)
    """`phase1`: weight of the final preference score."""


class RewardSection(Section):
    """What the policy is paid for."""

    preset: Literal["paired", "phase1"] = "paired"
    """`paired`: quality relative to the same seed's full-length image; `phase1`: step deltas plus final scores."""
    credit: Literal["final", "telescoped"] = "final"
    """`paired`: pay the returned image's quality at the last decision, or its change at every decision."""
    weights: Weights = Weights()
    """Weights of the quality terms."""
    scales: Scales = Scales()
    """Normalisers of the quality terms."""
    bound: float | None = Field(default=None, gt=0, le=1e6)
    """`paired`: quality approaches plus or minus this, so that the few images that fail where their full-length version
    does not, or the other way round, do not outweigh all others; null leaves it as it is."""
    terminal: TerminalWeights = TerminalWeights()
    """Weights of the final scores (`phase1` only)."""
    c_nfe: float = Field(default=0.01, ge=0, le=1e6)
    """Price of one NFE: of every training episode unless `c_nfe_range` is given, and of every held-out one."""
    c_nfe_range: tuple[Price, Price] | None = None
    """Least and greatest price: each training episode's is drawn log-uniformly between them and shown to the policy,
    so that one policy can be asked for any speed; null trains at `c_nfe` alone."""
    refine_bonus: float = Field(default=0.0, ge=-1e6, le=1e6)
    """Paid for each refine decision; 0 lets refine earn only what it adds to quality."""
    refine_bonus_by: Literal["count", "entropy"] = "count"
    """`entropy`: the bonus is multiplied by the entropy of the attention that chose the region, 1 where it is even."""
    normalise: bool = True
    """Divide scores by `scales`; false weighs them raw (ablation)."""
    terminal_form: Literal["additive", "multiplicative"] = "additive"
    """How the final parts are joined: their sum, or the product of (1 + part) minus 1, in which a bad part spoils the
    others (ablation)."""
    drop: tuple[Literal["quality", "efficiency", "terminal", "refine"], ...] = ()
    """Terms that are not paid, nor their scores read (ablation)."""

    @model_validator(mode="after")
    def _bound_is_for_pairs(self) -> Self:
        if self.bound is not None and self.preset != "paired":
            raise ValueError(f"bound={self.bound:g} is for preset=paired, not for {self.preset}: leave it at null")
        return self

    @model_validator(mode="after")
    def _range_rises(self) -> Self:
        if self.c_nfe_range is not None and self.c_nfe_range[0] > self.c_nfe_range[1]:
            raise ValueError("c_nfe_range must not fall")
        return self

    @property
    def prices(self) -> tuple[float, float]:
        """Least and greatest price of an NFE in a training episode; equal without `c_nfe_range`."""
        return self.c_nfe_range or (self.c_nfe, self.c_nfe)
