"""Promise 6: what looking, scoring, the engine and the driver add to the network.

Seconds of a shared machine are no test. What is stated are figures of the benchmarks' pages, within their bounds; what
can be counted is counted.
"""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def cells(page: str, first: str) -> list[str]:
    """The row of a page's table that begins with ``first``."""
    found = re.search(rf"^\| {re.escape(first)} \|(.*)\|$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None, first
    return [cell.strip() for cell in found[1].split("|")]


def number(text: str) -> float:
    found = re.search(r"\d+(?:\.\d+)?", text)
    assert found is not None, text
    return float(found[0])


def test_6_looking_costs_less_than_a_third() -> None:
    """Looking at an image and scoring it costs less than a third of a guided step (the embedded world),"""
    _, measured, verdict = cells("embedded.md", "preview and all scorers over a guided step")
    assert number(measured) < 1 / 3
    assert verdict == "met"


def test_6_the_engine_is_the_bare_network() -> None:
    """the engine runs at the bare network's speed (64 slots, one thread),"""
    _, measured, bound = cells("performance.md", "engine over the bare network at its best batch (32; 64)")
    assert number(measured) >= number(bound) == 0.95


def test_6_the_driver_takes_little() -> None:
    """and learner and driver take 1.6 % of an iteration (performance)."""
    name = "learner, broadcast, tickets and driver, of an iteration (`learner_share`)"
    measured, bound = cells("performance.md", name)
    assert number(measured) == 1.6 <= number(bound)
