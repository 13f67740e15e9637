"""Signs of a policy that collapses, read from the metrics of the latest iterations. Pure: a resume sees them again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan

from addiffusion.config.training import ALARM_NAMES, AlarmName, AlarmsSection

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


def raised_alarms(rows: Sequence[Row], section: AlarmsSection, *, refine_allowed: bool) -> tuple[Alarm, ...]:
    """The alarms that hold after the last of ``rows``, in the order of ``ALARM_NAMES``.

    Args:
        rows: lines of metrics.jsonl from the first iteration on.
        section: thresholds, grace and patience.
        refine_allowed: whether ``never_refine`` means anything.
    """
    latest = rows[-section.patience :]
    if len(rows) < section.grace + section.patience:
        return ()
    return tuple(
        Alarm(name=check.name, message=check.says.format(_number(latest[-1], check.metric)))
        for check in _CHECKS
        if (refine_allowed or check.name != "never_refine") and all(_is_wrong(row, check, section) for row in latest)
    )


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
