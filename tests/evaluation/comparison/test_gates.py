"""Gates: each criterion on made-up figures that pass and fail, and what is missing."""

from __future__ import annotations

from typing import Any

import pytest

from addiffusion.errors import EvaluationError
from evaluation.comparison.gates import Gate, equal_quality_gate, few_step_gate, memory_gate, training_gate
from tests.evaluation.report.toy_page import toy_rows


def rows(**changes: float) -> list[dict[str, float | None]]:
    return [
        {**row, "total_loss": 1.0 - 0.005 * step, "collect_s": 9.0, "update_s": 1.0, **changes}
        for step, row in enumerate(toy_rows(120))
    ]


def failed(gate: Gate) -> list[str]:
    return [one.name for one in gate.criteria if not one.passed]


def summary(nfe: float = 12.0, gain: float = 0.01, *, established: bool = True) -> dict[str, Any]:
    against = [
        {"metric": "scene_soft", "difference": gain, "ci": [gain - 0.005, gain + 0.005], "p_value": 0.01},
        {"metric": "clip", "difference": -0.002, "ci": [-0.004, 0.001], "p_value": 0.2},
    ]
    equal = {"against": "ddim-50", "metric": "clip", "margin": 0.008, "difference": -0.001, "ci": [-0.003, 0.001],
             "established": established}  # fmt: skip
    return {"mean_nfe": nfe, "against_ddim20": against, "non_inferiority": [equal]}


def test_a_sound_training_passes() -> None:
    gate = training_gate(rows(), longest_s=60)
    assert gate.passed, failed(gate)
    assert gate.as_json()["criteria"][3] == {
        "name": "an iteration takes at most 60 s", "value": 10.0, "figure": "10.0 s (median)", "passed": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "longest_s", "criterion"),
    [
        ({"total_loss": 1.0}, 60, "loss falls"),
        ({"continue_frac": 0.995, "stop_frac": 0.005, "refine_frac": 0.0}, 60, "no action above 99%"),
        ({"term_quality": 40.0}, 60, "reward terms within a factor of 100"),
        ({}, 5, "an iteration takes at most 5 s"),
    ],
)
def test_each_fault_of_a_training_fails_its_own_criterion(
    changes: dict[str, float], longest_s: float, criterion: str
) -> None:
    assert failed(training_gate(rows(**changes), longest_s=longest_s)) == [criterion]


def test_a_short_training_is_no_evidence() -> None:
    with pytest.raises(EvaluationError, match="at least 100 iterations, this one has 24"):
        training_gate(toy_rows(24), longest_s=60)


def test_memory_is_told_part_by_part() -> None:
    gate = memory_gate({"scorers": 2.0, "model": 5.0, "batch": 9.5}, 10.0)
    assert failed(gate) == ["peak at most 90% of the memory"]
    assert [one.value for one in gate.criteria] == pytest.approx([2.0, 3.0, 4.5, 0.95])
    assert memory_gate({"scorers": 2.0, "model": 5.0}, 10.0).passed


def test_the_agent_must_be_cheap_and_better_than_few_steps() -> None:
    assert few_step_gate(summary()).passed
    assert failed(few_step_gate(summary(nfe=31))) == ["mean NFE at most 30"]
    assert failed(few_step_gate(summary(gain=0.004))) == ["beats DDIM-20 in a score"]
    assert equal_quality_gate(summary()).passed
    assert failed(equal_quality_gate(summary(established=False))) == ["CLIP not below DDIM-50"]


def test_a_comparison_without_the_opponent_says_which_is_missing() -> None:
    with pytest.raises(EvaluationError, match="no ddim-20 to compare with"):
        few_step_gate(summary() | {"against_ddim20": []})
    with pytest.raises(EvaluationError, match="no ddim-50 to compare with"):
        equal_quality_gate(summary() | {"non_inferiority": []})
