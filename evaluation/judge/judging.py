"""Contests through the judge, both orders each, and what came of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evaluation.judge.contest import Choice, Contest, Outcome, read_choice, settle
from evaluation.judge.endpoint import ChatClient
from evaluation.judge.verdicts import VerdictFile

ASKS_PER_ORDER = 2
"""How often a question is put before its contest counts as invalid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ballot:
    """Outcome of one contest."""

    left: str
    right: str
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Outcomes of all contests, and what it took."""

    ballots: tuple[Ballot, ...]
    """In the order of the contests."""
    asked_count: int
    """Questions put to the endpoint now; the rest was on disk, or needed no judge."""
    garbage_count: int
    """Replies that named no winner."""
    position_count: int
    """Contests in which the judge chose the same place in both orders, so two different images: ties by rule."""

    def count(self, outcome: Outcome) -> int:
        """Contests that ended so."""
        return sum(ballot.outcome is outcome for ballot in self.ballots)


def judge(
    contests: Sequence[Contest], *, client: ChatClient, verdicts: VerdictFile, advance: Callable[[int], None]
) -> Judgement:
    """Ask for each contest in both orders. Equal images are a tie without asking.

    Args:
        contests: pairs of images.
        client: the model that is asked.
        verdicts: replies of before, which are not asked for again; new ones are added.
        advance: told 1 for each contest that is done.

    Raises:
        JudgeError: the endpoint refuses or can't be reached; verdicts so far are in ``verdicts``.
    """
    bench = _Bench(client=client, verdicts=verdicts)
    ballots: list[Ballot] = []
    for contest in contests:
        ballots.append(Ballot(left=contest.left, right=contest.right, outcome=bench.decide(contest)))
        advance(1)
    return Judgement(
        ballots=tuple(ballots),
        asked_count=bench.asked_count,
        garbage_count=bench.garbage_count,
        position_count=bench.position_count,
    )


@dataclass(slots=True, kw_only=True)
class _Bench:
    """The judge at work, counting."""

    client: ChatClient
    verdicts: VerdictFile
    asked_count: int = 0
    garbage_count: int = 0
    position_count: int = 0

    def decide(self, contest: Contest) -> Outcome:
        if contest.identical():
            return Outcome.TIE
        straight, swapped = self._verdict(contest), self._verdict(contest.swapped())
        self.position_count += straight == swapped and straight in (Choice.FIRST, Choice.SECOND)
        return settle(straight, swapped)

    def _verdict(self, contest: Contest) -> Choice | None:
        key = contest.key(self.client.endpoint.model)
        known = self.verdicts.get(key)
        if known is not None:
            return known
        for _ in range(ASKS_PER_ORDER):
            self.asked_count += 1
            reply = self.client.ask(contest.messages())
            choice = read_choice(reply)
            if choice is not None:
                self.verdicts.put(key, choice, reply)
                return choice
            self.garbage_count += 1
        return None
