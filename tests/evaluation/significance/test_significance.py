"""Intervals and tests against known values, and calibrated: they err as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from addiffusion.errors import EvaluationError
from evaluation.significance.holm import holm
from evaluation.significance.intervals import (
    MINIMUM_COUNT,
    Resampling,
    bootstrap_interval,
    gap_interval,
)
from evaluation.significance.paired import compare, mean_by_prompt, non_inferiority

QUICK = Resampling(count=399)


def test_holm_of_four() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), max_size=8))
@settings(max_examples=50, deadline=None)
def test_holm_lies_between_the_raw_p_value_and_bonferroni(p_values: list[float]) -> None:
    corrected, raw = holm(p_values), np.array(p_values)
    assert (corrected >= raw).all()
    assert (corrected <= np.minimum(1, raw * len(raw)) + 1e-12).all()
    assert (np.diff(corrected[np.argsort(raw, kind="stable")]) >= 0).all()


def test_holm_refuses_what_is_no_p_value() -> None:
    with pytest.raises(EvaluationError, match=r"\[0, 1\]"):
        holm([0.5, float("nan")])


def test_the_interval_of_a_normal_mean_is_students() -> None:
    values = np.random.default_rng(1).normal(3.0, 1.0, 400)
    student = stats.t.interval(0.95, 399, loc=values.mean(), scale=stats.sem(values))
    interval = bootstrap_interval(values)
    assert (interval.low, interval.high) == pytest.approx(student, abs=0.01)


def test_equal_values_have_an_interval_of_no_width() -> None:
    interval = bootstrap_interval(np.full(8, 0.25))
    assert (interval.low, interval.high) == (0.25, 0.25)


def test_the_interval_of_a_gap_of_normal_means_is_welchs() -> None:
    draws = np.random.default_rng(4)
    ours, theirs = draws.normal(3.0, 1.0, 400), draws.normal(2.0, 2.0, 300)
    welch = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    interval = gap_interval(ours, theirs)
    assert (interval.low, interval.high) == pytest.approx((welch.low, welch.high), abs=0.02)


def test_the_gap_of_equal_values_has_an_interval_of_no_width() -> None:
    interval = gap_interval(np.full(8, 0.75), np.full(6, 0.25))
    assert (interval.low, interval.high) == (0.5, 0.5)


@pytest.mark.parametrize("short", [0, 1])
def test_a_gap_needs_values_on_both_sides(short: int) -> None:
    samples = [np.arange(20.0), np.arange(20.0)]
    samples[short] = samples[short][: MINIMUM_COUNT - 1]
    with pytest.raises(EvaluationError, match="at least 6"):
        gap_interval(*samples)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("constant", [0, 1])
def test_a_gap_of_which_one_side_is_constant_is_finite(constant: int) -> None:
    samples = [np.random.default_rng(5).random(12), np.random.default_rng(6).random(12)]
    samples[constant] = np.full(12, 0.5)
    interval = gap_interval(*samples)
    assert -1 < interval.low < interval.high < 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [6, 7, 20, 120])
def test_mostly_equal_pairs_have_a_finite_interval(count: int) -> None:
    for differing in (1, 2, count - 1):
        values = np.zeros(count)
        values[:differing] = 0.5
        interval = bootstrap_interval(values, QUICK)
        assert 0 <= interval.low < interval.high <= 0.5
    rounding = np.full(count, 0.1)
    rounding[0] = np.nextafter(0.1, 1)
    assert bootstrap_interval(rounding, QUICK).low == pytest.approx(0.1)


def test_the_same_seed_gives_the_same_numbers_in_any_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = np.random.default_rng(2).random((2, 30))
    whole = compare(ours, theirs, name="a", metric="m", resampling=QUICK)
    assert compare(ours, theirs, name="a", metric="m", resampling=QUICK) == whole
    monkeypatch.setattr("evaluation.significance.intervals._BATCH_VALUES", 30 * 57)
    pieces = compare(ours, theirs, name="a", metric="m", resampling=QUICK)
    assert pieces.interval == whole.interval


def test_a_small_comparison_counts_every_sign_pattern() -> None:
    ours = np.array([1.0, 2, 3, 4, 5, 6])
    comparison = compare(ours, np.zeros(6), name="a", metric="m")
    assert comparison.p_value == pytest.approx(2 / 2**6)  # only all plus and all minus are as extreme
    assert comparison.difference == 3.5
    assert comparison.mean == 3.5


def test_pairs_without_a_score_are_left_out_and_counted() -> None:
    ours, theirs = np.arange(10.0), np.zeros(10)
    ours[0], theirs[9] = np.nan, np.nan
    comparison = compare(ours, theirs, name="a", metric="m", resampling=QUICK)
    assert (comparison.count, comparison.dropped_count) == (8, 2)
    assert comparison.mean == pytest.approx(4.5)


def test_too_few_pairs_says_how_many() -> None:
    ours = np.array([1.0, 2, 3, 4, 5, np.nan])
    with pytest.raises(EvaluationError, match=f"at least {MINIMUM_COUNT} pairs with both scores, got 5 of 6"):
        compare(ours, np.zeros(6), name="a", metric="m")
    with pytest.raises(EvaluationError, match=r"got shape \(3,\)"):
        bootstrap_interval(np.zeros(3))


def test_different_counts_are_refused() -> None:
    with pytest.raises(EvaluationError, match=r"\(8,\) can't be paired with scores of shape \(7,\)"):
        compare(np.zeros(8), np.zeros(7), name="a", metric="m")


def test_values_that_are_not_finite_are_refused_where_nobody_counts_them() -> None:
    with pytest.raises(EvaluationError, match="1 of 8 values are not finite"):
        bootstrap_interval(np.array([np.inf, *range(7)]))


def test_seeds_of_a_prompt_are_averaged() -> None:
    values = np.array([1.0, 3.0, np.nan, 5.0, np.nan])
    means = mean_by_prompt(values, np.array([7, 7, 7, 2, 9]))
    assert means[:2].tolist() == [5.0, 2.0]
    assert np.isnan(means[2])
    with pytest.raises(EvaluationError, match="one prompt id per score"):
        mean_by_prompt(values, np.array([1]))


def test_a_loss_inside_the_margin_is_non_inferior_and_outside_is_not() -> None:
    loss = -0.01 + np.random.default_rng(3).normal(0, 0.01, 100)
    assert non_inferiority(loss, np.zeros(100), margin=0.02, resampling=QUICK).established
    assert not non_inferiority(loss, np.zeros(100), margin=0.01, resampling=QUICK).established


def test_too_little_evidence_is_not_non_inferiority() -> None:
    noise = np.random.default_rng(4).normal(0, 1, 8)
    assert not non_inferiority(noise, np.zeros(8), margin=0.1, resampling=QUICK).established


@pytest.mark.parametrize("margin", [0.0, -0.1, float("nan"), float("inf")])
def test_a_margin_must_be_a_positive_number(margin: float) -> None:
    with pytest.raises(EvaluationError, match=f"margin={margin}"):
        non_inferiority(np.zeros(8), np.zeros(8), margin=margin)


def test_p_values_are_uniform_when_nothing_differs() -> None:
    draws = np.random.default_rng(5).normal(size=(300, 2, 24))
    p_values = [compare(ours, theirs, name="", metric="", resampling=QUICK).p_value for ours, theirs in draws]
    assert stats.kstest(p_values, "uniform").pvalue > 0.05


def test_skewed_differences_are_called_significant_as_often_as_said() -> None:
    draws = np.random.default_rng(6).exponential(size=(300, 40)) - 1
    low = sum(compare(row, np.zeros(40), name="", metric="", resampling=QUICK).p_value <= 0.05 for row in draws)
    assert 0.02 <= low / 300 <= 0.09


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    found = [bootstrap_interval(row, QUICK) for row in np.random.default_rng(7).exponential(size=(300, 50))]
    covered = sum(one.low <= 1.0 <= one.high for one in found)
    assert 0.90 <= covered / 300 <= 0.98


def test_non_inferiority_errs_at_most_as_often_as_it_says() -> None:
    draws = np.random.default_rng(8).normal(-0.5, 1, (300, 30))  # exactly at the margin
    wrong = sum(non_inferiority(row, np.zeros(30), margin=0.5, resampling=QUICK).established for row in draws)
    assert wrong / 300 <= 0.05
