"""Sections about the trajectory bank: how it is built, and what a policy learns from it first."""

from __future__ import annotations

from pydantic import Field

from addiffusion.config.section import LocalPath, Section


class BankSection(Section):
    """The trajectory bank (`addiffusion bank build`)."""

    every: int = Field(default=2, ge=1, le=10_000)
    """With n, stop is tried at the first decision and at every n-th after it: 1 is exact, 2 takes little more than half
    the time."""
    shard_size: int = Field(default=16, ge=1, le=100_000)
    """Trajectories per file; a killed build loses at most one file's."""


class WarmStartSection(Section):
    """The policy before its first live episode, from a trajectory bank."""

    bank: LocalPath | None = None
    """Bank to start from; null starts from the untrained policy. Its images also serve as references."""
    clone_epochs: int = Field(default=10, ge=0, le=100_000)
    """Epochs that value going on as an oracle would, which knows the future."""
    improve_epochs: int = Field(default=40, ge=0, le=100_000)
    """Epochs that value going on as the present policy would."""
    batch_size: int = Field(default=16, ge=1, le=1_000_000)
    """Trajectories per gradient step."""
    lr: float = Field(default=3.0e-4, gt=0, le=100)
    """AdamW learning rate of the first epoch; falls to 0 along a cosine."""
    weight_decay: float = Field(default=0.01, ge=0, le=1e6)
    """AdamW weight decay."""
    hide_share: float = Field(default=0.5, ge=0, lt=1)
    """Share of trajectories whose image or text embedding is hidden in a step."""
    sharpness: float = Field(default=6.0, ge=1, le=1e6)
    """Factor on the log odds of stop once they are learned: drawn actions, which PPO is paid by, then stop where the
    likeliest actions do."""
    value_coeff: float = Field(default=0.5, ge=0, le=1e6)
    """Weight of fitting the value network to the policy's exact values."""
    refine_prob: float = Field(default=0.05, gt=0, lt=1)
    """Probability of refine, of which a bank knows nothing, where the policy may take it."""
    refine_coeff: float = Field(default=1.0, ge=0, le=1e6)
    """Weight of keeping it there."""
    holdout_share: float = Field(default=0.2, gt=0, lt=1)
    """Share of the trajectories that choose the best epoch and are not trained on."""
    threads: int = Field(default=1, ge=1, le=1024)
    """torch threads; results are the same for the same number."""
