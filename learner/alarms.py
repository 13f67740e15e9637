"""Signs of a policy that collapses, read from the metrics of the latest iterations. Pure: a resume sees them again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import isnan

import numpy as np

from addiffusion.actions import ACTION_NAMES
from addiffusion.config.training import ALARM_NAMES, AlarmName, AlarmsSection
from addiffusion.records import Episode

Row = Mapping[str, float | int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One sign of collapse."""

    name: AlarmName
    message: str
    """What is wrong, in one sentence, and what to try."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Check:
    name: AlarmName
    metric: str
    wrong: Callable[[float, AlarmsSection], bool]
    says: str
    """With the metric's latest value for {}."""
    action: str | None = None
    """It means something only where this action is possible."""


_CHECKS = (
    _Check(
        name="always_continue",
        metric="only_continue_frac",
        wrong=lambda value, section: value >= section.same_frac,
        says="{:.1%} of the images only continue, to the last step: raise reward.c_nfe or ppo.entropy_start, or "
        "give policy.prior more stop",
    ),
    _Check(
        name="always_stop",
        metric="stop_at_once_frac",
        wrong=lambda value, section: value >= section.same_frac,
        says="{:.1%} of the images stop at their first decision: lower reward.c_nfe, or give policy.prior more "
        "continue",
    ),
    _Check(
        name="never_refine",
        metric="refine_frac",
        wrong=lambda value, section: value <= section.refine_frac,
        says="{:.2%} of the decisions refine: right where refine does not pay, otherwise raise ppo.entropy_start "
        "or reward.refine_bonus",
        action="refine",
    ),
    *(
        _Check(
            name="never_tried",
            metric=f"{action}_frac",
            wrong=lambda value, section: value <= section.refine_frac,
            says=f"{{:.2%}} of the decisions are {action}: right where it does not pay, otherwise raise "
            f"ppo.entropy_start, or leave it out of policy.actions",
            action=action,
        )
        for action in ACTION_NAMES[3:]
    ),
    _Check(
        name="entropy_floor",
        metric="entropy",
        wrong=lambda value, section: value < section.entropy,
        says="the policy has {:.4f} nats of entropy left, so it no longer tries anything: raise ppo.entropy_end, "
        "or lower ppo.lr",
    ),
    _Check(
        name="value_useless",
        metric="explained_variance",
        wrong=lambda value, section: value < section.explained_variance,
        says="the value network explains {:.2f} of the variance of the returns (a constant explains 0): lower "
        "ppo.lr, or raise ppo.value_coeff or ppo.batch_size",
    ),
)


def raised_alarms(rows: Sequence[Row], section: AlarmsSection, *, possible: Collection[str]) -> tuple[Alarm, ...]:
    """The alarms that hold after the last of ``rows``, in the order of ``ALARM_NAMES``.

    Args:
        rows: lines of metrics.jsonl from the first iteration on.
        section: thresholds, grace and patience.
        possible: actions that the policies could take; of others it means nothing that they don't.
    """
    latest = rows[-section.patience :]
    if len(rows) < section.grace + section.patience:
        return ()
    return tuple(
        Alarm(name=check.name, message=check.says.format(_number(latest[-1], check.metric)))
        for check in _CHECKS
        if (check.action is None or check.action in possible) and all(_is_wrong(row, check, section) for row in latest)
    )


def possible_actions(episodes: Sequence[Episode]) -> frozenset[str]:
    """Actions that the policies could take anywhere: a masked action has probability 0."""
    logits = np.concatenate([episode.logits for episode in episodes])
    seen = (np.exp(logits - logits.max(axis=1, keepdims=True)) > 0).any(axis=0)
    return frozenset(name for name, possible in zip(ACTION_NAMES, seen.tolist(), strict=False) if possible)


def alarm_metrics(raised: Sequence[Alarm]) -> dict[str, float]:
    """``alarm_<name>``: 1 while the alarm holds, else 0."""
    names = {alarm.name for alarm in raised}
    return {f"alarm_{name}": float(name in names) for name in ALARM_NAMES}


def _is_wrong(row: Row, check: _Check, section: AlarmsSection) -> bool:
    """A metric that is missing or not a number raises nothing."""
    value = _number(row, check.metric)
    return not isnan(value) and check.wrong(value, section)


def _number(row: Row, metric: str) -> float:
    value = row.get(metric)
    return float("nan") if value is None else float(value)
