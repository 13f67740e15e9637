"""Comparisons as a table in Markdown or LaTeX. A difference is bold only where it is significant after Holm."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from addiffusion.errors import EvaluationError
from evaluation.significance.holm import holm
from evaluation.significance.paired import Comparison

_LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
}
_MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]<>|~#])")
_COLUMNS = ("comparison", "metric", "mean", "baseline", "difference", "p (Holm)", "n")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dialect:
    """What differs between the two kinds of table."""

    escape: Callable[[str], str]
    number: Callable[[str, bool], str]
    """A number or an interval, bold or not."""


def markdown_table(comparisons: Sequence[Comparison], *, alpha: float = 0.05, digits: int = 3) -> str:
    """A pipe table, one row per comparison, p-values corrected for all of them.

    Raises:
        EvaluationError: no comparison, or intervals of different levels.
    """
    rows = _rows(comparisons, _Dialect(escape=escape_markdown, number=_markdown_number), alpha, digits)
    return pipe_table(rows[0], rows[1:], texts=2)


def latex_table(comparisons: Sequence[Comparison], *, alpha: float = 0.05, digits: int = 3) -> str:
    r"""A `tabular` for the booktabs package, one row per comparison, p-values corrected for all of them.

    Raises:
        EvaluationError: no comparison, or intervals of different levels.
    """
    rows = _rows(comparisons, _Dialect(escape=escape_latex, number=_latex_number), alpha, digits)
    return tabular(rows[0], [r"\midrule", *map(latex_row, rows[1:])], texts=2)


def pipe_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, texts: int = 1) -> str:
    """A table in Markdown; its first ``texts`` columns are words, the others numbers."""
    lines = [head, [*["---"] * texts, *["---:"] * (len(head) - texts)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def tabular(head: Sequence[str], body: Iterable[str], *, texts: int = 1) -> str:
    r"""A `tabular` for the booktabs package; its first ``texts`` columns are words, the others numbers."""
    columns = "l" * texts + "r" * (len(head) - texts)
    begin = (rf"\begin{{tabular}}{{{columns}}}", r"\toprule", latex_row(head))
    return "\n".join((*begin, *body, r"\bottomrule", r"\end{tabular}")) + "\n"


def latex_row(cells: Iterable[str]) -> str:
    """Cells that LaTeX sets as they are, as a line of a `tabular`."""
    return " & ".join(cells) + r" \\"


def _rows(comparisons: Sequence[Comparison], dialect: _Dialect, alpha: float, digits: int) -> list[list[str]]:
    levels = {comparison.interval.level for comparison in comparisons}
    if len(levels) != 1:
        raise EvaluationError(
            f"A table needs comparisons whose intervals share one level, got {len(comparisons)} comparisons with "
            f"levels {sorted(levels)}: compute them with the same Resampling.",
            levels=sorted(levels),
        )
    head = [*_COLUMNS]
    head[_COLUMNS.index("difference")] += f" [{100 * levels.pop():g} %]"
    corrected = holm([comparison.p_value for comparison in comparisons])
    return [
        [dialect.escape(title) for title in head],
        *(
            _row(comparison, float(p_value), dialect=dialect, alpha=alpha, digits=digits)
            for comparison, p_value in zip(comparisons, corrected, strict=True)
        ),
    ]


def _row(comparison: Comparison, p_value: float, *, dialect: _Dialect, alpha: float, digits: int) -> list[str]:
    low, high = comparison.interval.low, comparison.interval.high
    difference = dialect.number(f"{comparison.difference:+.{digits}f}", p_value <= alpha)
    interval = dialect.number(f"[{low:+.{digits}f}, {high:+.{digits}f}]", False)
    return [
        dialect.escape(comparison.name),
        dialect.escape(comparison.metric),
        dialect.number(f"{comparison.mean:.{digits}f}", False),
        dialect.number(f"{comparison.baseline_mean:.{digits}f}", False),
        f"{difference} {interval}",
        dialect.escape("< 0.001") if p_value < 0.001 else f"{p_value:.3f}",
        str(comparison.count),
    ]


def escape_markdown(text: str) -> str:
    """Text that no Markdown renderer takes for marks."""
    return _MARKDOWN_SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _markdown_number(number: str, bold: bool) -> str:
    return f"**{number}**" if bold else number


def escape_latex(text: str) -> str:
    """Text that LaTeX sets as it is."""
    return "".join(_LATEX_SPECIAL.get(sign, sign) for sign in " ".join(text.split()))


def _latex_number(number: str, bold: bool) -> str:
    # Math mode turns the hyphen into a minus sign.
    return rf"$\mathbf{{{number}}}$" if bold else f"${number}$"
