"""What tickets may say about stops: where a control stops, and which stops are tried for a bank."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRule:
    """When a control stops, without a policy: at the first decision that ``at_step`` or ``change_below`` holds for."""

    at_step: int | None = None
    """Schedule index i from which on it stops."""
    change_below: float | None = None
    """It stops where z0_pred has moved since the decision before by less than this share of its length."""
    refine_last: bool = False
    """With ``at_step``: the decision before the stop is a refine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordAllStops:
    """Asks an episode of full length for the outcome of every stop on its way, for a trajectory bank."""

    stride: int = 1
    """n: stop is tried at the first decision and at every n-th after it."""
    metrics: tuple[str, ...] = ()
    """Names of METRIC_NAMES to judge every image by."""
