"""Bradley-Terry against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from addiffusion.errors import EvaluationError
from evaluation.judge.contest import Outcome
from evaluation.judge.judging import Ballot
from evaluation.judge.ranking import bradley_terry


def ballots(left: str, right: str, wins: int, losses: int, ties: int = 0) -> list[Ballot]:
    outcomes = [Outcome.LEFT] * wins + [Outcome.RIGHT] * losses + [Outcome.TIE] * ties
    return [Ballot(left=left, right=right, outcome=outcome) for outcome in outcomes]


def test_seven_wins_against_three() -> None:
    first, second = bradley_terry(ballots("policy", "full", 7, 3), reference="full")
    assert (first.name, second.name) == ("policy", "full")
    assert first.strength == pytest.approx(math.log(7 / 3), abs=1e-7)
    half = 1.959964 * math.sqrt(10 / 21)  # 1 / (n p q)
    assert (first.interval.low, first.interval.high) == pytest.approx(
        (math.log(7 / 3) - half, math.log(7 / 3) + half), abs=1e-6
    )
    assert (first.wins, first.contest_count) == (7, 10)
    assert (second.strength, second.interval.low, second.interval.high) == (0, 0, 0)


def test_sides_do_not_matter_and_a_tie_is_half_a_win() -> None:
    found = bradley_terry(ballots("full", "policy", 2, 6, 2), reference="full")
    assert found[0].strength == pytest.approx(math.log(7 / 3), abs=1e-7)


def test_strengths_that_made_the_outcomes_are_found_again() -> None:
    truth, names = np.array([0.0, 0.8, -0.5, 1.5]), ("a", "b", "c", "d")
    played: list[Ballot] = []
    for one in range(4):
        for other in range(one):
            odds = 1 / (1 + math.exp(truth[other] - truth[one]))
            wins = round(10_000 * odds)
            played += ballots(names[one], names[other], wins, 10_000 - wins)
    found = {standing.name: standing for standing in bradley_terry(played, reference="a")}
    assert [found[name].strength for name in names] == pytest.approx(truth.tolist(), abs=1e-3)
    intervals = [found[name].interval for name in names]
    assert all(one.low <= value <= one.high for one, value in zip(intervals, truth, strict=True))


def test_invalid_contests_do_not_count() -> None:
    invalid = [Ballot(left="policy", right="full", outcome=Outcome.INVALID)] * 5
    assert bradley_terry(ballots("policy", "full", 7, 3) + invalid, reference="full")[0].contest_count == 10


def test_who_never_lost_has_no_finite_strength_unless_a_prior_is_given() -> None:
    played = ballots("policy", "full", 5, 0)
    with pytest.raises(EvaluationError, match=r"wins go one way only.*prior=0.5"):
        bradley_terry(played, reference="full")
    assert bradley_terry(played, reference="full", prior=0.5)[0].strength == pytest.approx(math.log(11), abs=1e-6)


def test_islands_can_not_be_ranked() -> None:
    with pytest.raises(EvaluationError, match=r"between a \+ b and c \+ d"):
        bradley_terry(ballots("a", "b", 1, 1) + ballots("c", "d", 1, 1), reference="a", prior=0.5)


def test_the_reference_must_have_played() -> None:
    with pytest.raises(EvaluationError, match="'ddim' took part in no valid contest: choose one of full, policy"):
        bradley_terry(ballots("policy", "full", 7, 3), reference="ddim")
