"""Tables of comparisons: escaping, intervals, and bold only where Holm leaves it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from addiffusion.errors import EvaluationError
from evaluation.significance.intervals import Interval
from evaluation.significance.paired import Comparison
from evaluation.significance.tables import latex_table, markdown_table


def row(name: str, p_value: float, difference: float = -0.0126) -> Comparison:
    return Comparison(
        name=name,
        metric="scene_soft",
        mean=0.5 + difference,
        baseline_mean=0.5,
        interval=Interval(low=difference - 0.01, high=difference + 0.01, level=0.95),
        p_value=p_value,
        count=120,
        dropped_count=0,
    )


def test_markdown_as_a_whole() -> None:
    table = markdown_table([row("policy | DDIM-20", 0.0001), row("policy / PNDM-20", 0.2, 0.004)])
    assert table.splitlines() == [
        r"| comparison | metric | mean | baseline | difference \[95 %\] | p (Holm) | n |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
        r"| policy \| DDIM-20 | scene\_soft | 0.487 | 0.500 | **-0.013** [-0.023, -0.003] | \< 0.001 | 120 |",
        r"| policy / PNDM-20 | scene\_soft | 0.504 | 0.500 | +0.004 [-0.006, +0.014] | 0.200 | 120 |",
    ]


def test_latex_as_a_whole() -> None:
    table = latex_table([row("50% & less_{a}", 0.0001)], digits=2)
    assert table.splitlines() == [
        r"\begin{tabular}{llrrrrr}",
        r"\toprule",
        r"comparison & metric & mean & baseline & difference [95 \%] & p (Holm) & n \\",
        r"\midrule",
        r"50\% \& less\_\{a\} & scene\_soft & $0.49$ & $0.50$ & $\mathbf{-0.01}$ $[-0.02, -0.00]$ "
        r"& \textless{} 0.001 & 120 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_what_is_significant_alone_may_not_be_among_many() -> None:
    assert "**" in markdown_table([row("a", 0.03)])
    assert "**" not in markdown_table([row("a", 0.03), row("b", 0.5)])
    assert "mathbf" not in latex_table([row("a", 0.03), row("b", 0.5)])


def test_a_name_with_a_newline_stays_in_its_cell() -> None:
    assert len(markdown_table([row("two\nlines", 0.5)]).splitlines()) == 3
    assert r"\textbackslash{}input" in latex_table([row("\\input", 0.5)])


def test_levels_must_agree_and_something_must_be_compared() -> None:
    other = replace(row("a", 0.5), interval=Interval(low=-1, high=1, level=0.9))
    with pytest.raises(EvaluationError, match=r"levels \[0.9, 0.95\]"):
        markdown_table([row("a", 0.5), other])
    with pytest.raises(EvaluationError, match="got 0 comparisons"):
        latex_table([])
