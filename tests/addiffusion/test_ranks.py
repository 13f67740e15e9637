"""Spearman's rho against scipy's own."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from addiffusion.ranks import rank_correlation

PAIRS = st.lists(st.tuples(st.integers(-3, 3), st.integers(1, 3)), min_size=2, max_size=30)


@given(PAIRS)
def test_it_equals_scipys(pairs: list[tuple[int, int]]) -> None:
    first, second = zip(*pairs, strict=True)
    rho = rank_correlation(first, second)
    if len(set(first)) < 2 or len(set(second)) < 2:
        assert math.isnan(rho)
    else:
        assert rho == pytest.approx(spearmanr(first, second).statistic)


def test_nothing_has_no_correlation() -> None:
    assert math.isnan(rank_correlation((), ()))
