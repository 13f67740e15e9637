"""The gates of the plan: criteria with their figures, each passed or not. Numbers in, verdicts out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from addiffusion.actions import ACTION_NAMES
from addiffusion.errors import EvaluationError
from addiffusion.records import TERM_NAMES
from evaluation.comparison.held_out import COLLAPSE_FRAC

Row = Mapping[str, float | None]
MEMORY_SHARE = 0.9
"""More of a device's memory than this leaves no room for what changes from tick to tick."""
LEAST_ITERATIONS = 100
TERM_RATIO = 100.0
"""Mean sizes of two reward terms that are further apart: the smaller one is not heard."""
NFE_LIMIT = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """One line of a gate."""

    name: str
    figure: str
    """What was measured, for people."""
    passed: bool
    value: float | None = None
    """The same as a number, where it is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """All criteria must pass."""

    name: str
    title: str
    criteria: tuple[Criterion, ...]

    @property
    def passed(self) -> bool:
        """Whether every criterion is met."""
        return all(criterion.passed for criterion in self.criteria)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "gate": self.name,
            "passed": self.passed,
            "criteria": [
                {"name": one.name, "value": one.value, "figure": one.figure, "passed": one.passed}
                for one in self.criteria
            ],
        }


def memory_gate(peaks: Mapping[str, float], capacity: float, *, unit: str = "GB") -> Gate:
    """g0: whether what a worker holds fits, part by part and together.

    Args:
        peaks: memory after each part was loaded and used, cumulative, in ``unit``, in order.
        capacity: of the device.
        unit: for people.
    """
    before = 0.0
    parts: list[Criterion] = []
    for name, peak in peaks.items():
        figure = f"{max(0.0, peak - before):.2f} {unit}, {peak:.2f} {unit} so far"
        parts.append(Criterion(name=name, figure=figure, passed=peak <= capacity, value=peak - before))
        before = max(before, peak)
    share = before / capacity
    whole = Criterion(
        name=f"peak at most {MEMORY_SHARE:.0%} of the memory",
        figure=f"{before:.2f} of {capacity:.2f} {unit} ({share:.0%})",
        passed=share <= MEMORY_SHARE,
        value=share,
    )
    return Gate(name="g0", title="Memory audit", criteria=(*parts, whole))


def training_gate(rows: Sequence[Row], *, longest_s: float) -> Gate:
    """g1: whether a training learns: loss, actions, reward terms, pace.

    Raises:
        EvaluationError: fewer than LEAST_ITERATIONS iterations.
    """
    if len(rows) < LEAST_ITERATIONS:
        raise EvaluationError(
            f"Gate g1 needs a run of at least {LEAST_ITERATIONS} iterations, this one has {len(rows)}: train with "
            f"ppo.iterations={LEAST_ITERATIONS} or more.",
            iterations=len(rows),
            minimum=LEAST_ITERATIONS,
        )
    return Gate(
        name="g1",
        title="Training",
        criteria=(_loss_falls(rows), _actions_mixed(rows[-1]), _terms_comparable(rows), _pace(rows, longest_s)),
    )


def few_step_gate(summary: Mapping[str, Any]) -> Gate:
    """g2: whether the agent beats DDIM-20 in a score, significantly, at NFE_LIMIT passes or fewer."""
    wins = [
        Criterion(
            name=f"beats DDIM-20 in {row['metric']}",
            figure=f"{row['difference']:+.4f} [{row['ci'][0]:+.4f}, {row['ci'][1]:+.4f}]",
            passed=row["ci"][0] > 0,
            value=row["difference"],
        )
        for row in summary["against_ddim20"]
    ]
    if not wins:
        raise _without("ddim-20")
    best = max(wins, key=lambda one: (one.passed, one.value))
    figures = "; ".join(
        f"{row['metric']} {one.figure}" for row, one in zip(summary["against_ddim20"], wins, strict=True)
    )
    anyone = Criterion(name="beats DDIM-20 in a score", figure=figures, passed=best.passed, value=best.value)
    return Gate(name="g2", title="Better than few steps", criteria=(_few_passes(summary), anyone))


def equal_quality_gate(summary: Mapping[str, Any]) -> Gate:
    """g3: whether CLIP is not below DDIM-50's, by the margin stated in the comparison, at NFE_LIMIT or fewer."""
    found = [one for one in summary["non_inferiority"] if one["against"] == "ddim-50" and one["metric"] == "clip"]
    if not found:
        raise _without("ddim-50")
    row = found[0]
    figure = f"{row['difference']:+.4f} [{row['ci'][0]:+.4f}, {row['ci'][1]:+.4f}], margin {row['margin']:.4f}"
    clip = Criterion(name="CLIP not below DDIM-50", figure=figure, passed=row["established"], value=row["difference"])
    return Gate(name="g3", title="Equal quality", criteria=(_few_passes(summary), clip))


def _few_passes(summary: Mapping[str, Any]) -> Criterion:
    nfe = float(summary["mean_nfe"])
    return Criterion(name=f"mean NFE at most {NFE_LIMIT:g}", figure=f"{nfe:.1f}", passed=nfe <= NFE_LIMIT, value=nfe)


def _loss_falls(rows: Sequence[Row]) -> Criterion:
    """First against last tenth: single iterations are noise."""
    tenth = max(1, len(rows) // 10)
    first, last = (_mean(part, "total_loss") for part in (rows[:tenth], rows[-tenth:]))
    return Criterion(
        name="loss falls", figure=f"{first:.4f} to {last:.4f} (means of {tenth} iterations)", passed=last < first,
        value=last - first,
    )  # fmt: skip


def _actions_mixed(row: Row) -> Criterion:
    shares = {name: float(row.get(f"{name}_frac") or 0.0) for name in ACTION_NAMES if f"{name}_frac" in row}
    largest = max(shares.values())
    figure = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    return Criterion(name=f"no action above {COLLAPSE_FRAC:.0%}", figure=figure, passed=largest <= COLLAPSE_FRAC,
                     value=largest)  # fmt: skip


def _terms_comparable(rows: Sequence[Row]) -> Criterion:
    sizes = {name: float(np.mean([abs(row.get(f"term_{name}") or 0.0) for row in rows])) for name in TERM_NAMES}
    used = {name: size for name, size in sizes.items() if size > 0}
    ratio = max(used.values()) / min(used.values()) if used else math.inf
    figure = ", ".join(f"{name} {size:.4f}" for name, size in used.items()) or "no term is ever paid"
    return Criterion(name=f"reward terms within a factor of {TERM_RATIO:g}", figure=figure,
                     passed=ratio <= TERM_RATIO, value=ratio if math.isfinite(ratio) else None)  # fmt: skip


def _pace(rows: Sequence[Row], longest_s: float) -> Criterion:
    seconds = float(np.median([(row.get("collect_s") or 0.0) + (row.get("update_s") or 0.0) for row in rows]))
    return Criterion(name=f"an iteration takes at most {longest_s:g} s", figure=f"{seconds:.1f} s (median)",
                     passed=seconds <= longest_s, value=seconds)  # fmt: skip


def _mean(rows: Sequence[Row], name: str) -> float:
    values = [value for row in rows if (value := row.get(name)) is not None]
    return float(np.mean(values)) if values else math.nan


def _without(name: str) -> EvaluationError:
    return EvaluationError(
        f"The comparison has no {name} to compare with: run `addiffusion evaluate --sampler {name}`.", missing=name
    )
