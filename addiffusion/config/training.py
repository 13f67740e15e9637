"""Sections about one training beside its algorithm: alarms, curriculum, tracking."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from addiffusion.config.section import OR_OFF, Section

AlarmName = Literal["always_continue", "always_stop", "never_refine", "never_tried", "entropy_floor", "value_useless"]
ALARM_NAMES: tuple[AlarmName, ...] = get_args(AlarmName)
Share = Annotated[float, Field(gt=0, le=1)]


class AlarmsSection(Section):
    """When a run warns that its policy collapses."""

    grace: int = Field(default=5, ge=0, le=1_000_000)
    """Iterations at the start of a run without alarms."""
    patience: int = Field(default=3, ge=1, le=1_000_000)
    """An alarm needs its condition in each of this many latest iterations."""
    same_frac: Share = 0.99
    """`always_continue` and `always_stop`: this share of the episodes does nothing but continue, or stops at its first
    decision."""
    refine_frac: float = Field(default=0.001, ge=0, lt=1)
    """`never_refine`, `never_tried` (leap, unguided, redraw): an action has at most this share of the decisions, though
    it is allowed."""
    entropy: float = Field(default=0.01, ge=0, le=1000)
    """`entropy_floor`: the policy has less entropy than this, in nats per decision."""
    explained_variance: float = Field(default=-0.5, le=1, ge=-1e12)
    """`value_useless`: the values explain less than this of the variance of what they predict; 0 is what a constant
    explains."""
    stop_on: tuple[AlarmName, ...] = ("always_continue", "always_stop", "entropy_floor")
    """Alarms that end a run under `train --stop-on-collapse`; the others only warn. `never_refine` may be right."""


class TrackingSection(Section):
    """What is shown of a run while it works, beside console, metrics.jsonl and TensorBoard."""

    plot_every_s: float = Field(default=60.0, gt=0, le=1e8)
    """Least seconds between two drawings of the plots."""
    wandb: Annotated[Literal["off", "online", "offline"], OR_OFF] = "off"
    """Also send the metrics to Weights & Biases (package `wandb`); `offline` writes them below the run folder."""
    wandb_project: Annotated[str, Field(min_length=1)] = "addiffusion"
    """Project there; the run has the name of its folder."""


class CurriculumSection(Section):
    """Which tiers of prompts are trained when: simple, then mixed, then all."""

    simple_iterations: int = Field(default=0, ge=0, le=1_000_000)
    """Iterations at the start that train tier 1 alone."""
    mixed_iterations: int = Field(default=0, ge=0, le=1_000_000)
    """Iterations after them that train tiers 1 and 2; all tiers follow."""
