"""Hand-made opponents: their names, their tickets, what their tries cost, their section of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from addiffusion.actions import Action
from addiffusion.config import SamplerSection
from addiffusion.errors import UsageError
from addiffusion.records import Episode, Prompt, Ticket
from addiffusion.rollouts import Collected
from evaluation.comparison.contestants import agent, make_cases, static, tickets_of
from evaluation.comparison.draw import draw_cases
from evaluation.comparison.handmade import HANDMADE, handmade
from evaluation.comparison.scores import NamedScores
from evaluation.comparison.summary import ComparisonResult
from evaluation.report.handmade_section import MARK, handmade_section
from evaluation.report.page_sections import write_section
from tests.evaluation.comparison.test_comparison import drawn
from tests.learner.toy import toy_episode, toy_ticket

SAMPLER = SamplerSection(num_steps=50, warmup_steps=3, finish_steps=8)
CASES = make_cases([Prompt(prompt_id=n, text=f"p{n}", tier=1) for n in range(3)], repeats=1, seed=0)
LOOKED = ((0.2, 0.9, 0.4), (0.1, 0.2, 0.3), (0.9, 0.1, 0.1))
"""CLIP scores of the draws at the look, by case."""


class Scripted:
    """Rollouts of full length or up to a look, whose scores are those of LOOKED."""

    def __init__(self) -> None:
        self.whole: list[Ticket] = []

    def set_weights(self, weights: object, version: int) -> None: ...

    def advance(self, tickets: Sequence[Ticket]) -> Collected:
        return self.collect(tickets)

    def collect(self, tickets: Sequence[Ticket], *, sampler: SamplerSection | None = None) -> Collected:
        assert sampler is not None
        looks = [ticket.stop_rule is not None for ticket in tickets]
        assert all(looks) or not any(looks)
        self.whole += [] if all(looks) else tickets
        episodes: list[Episode] = []
        for ticket in tickets:
            rule, clip = ticket.stop_rule, 0.5
            nfe = sampler.num_steps
            if rule is not None and rule.at_step is not None:
                assert sampler.finish_steps == 0
                nfe, clip = rule.at_step + 1, LOOKED[ticket.ticket_id // 3][ticket.ticket_id % 3]
            one = toy_episode(toy_ticket(), phi=np.zeros((nfe, 2), np.float32), actions=[0] * nfe, rewards=[0.0] * nfe)
            episodes.append(replace(one, ticket=ticket, scores=np.full((nfe + 1, 3), clip, np.float32)))
        return Collected(episodes=tuple(episodes))


def test_scripts_are_what_their_names_say() -> None:
    interval = handmade("guidance-5-30", SAMPLER).script
    assert interval is not None
    unguided = [step + 1 for step, action in enumerate(interval) if action is Action.UNGUIDED]
    assert unguided == [*range(1, 5), *range(30, 51)], "a decision is about the next pass"
    leaps = handmade("ddim-20:leap4-from-10", SAMPLER)
    assert leaps.script == (Action.CONTINUE,) * 10 + (Action.LEAP,) * 10
    assert (leaps.sampler.num_steps, leaps.sampler.leap_steps, leaps.name) == (20, 4, "ddim-20-leap4-from-10")
    (ticket, *_) = tickets_of(leaps, CASES)
    assert (ticket.script, ticket.forced) == (leaps.script, Action.CONTINUE)
    assert len({handmade(name, SAMPLER).name for name in HANDMADE}) == len(HANDMADE)
    assert "script" not in static("ddim-20", SAMPLER).as_json(), "comparisons of before are gone on with"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("guidance-off", "'guidance-off' is no hand-made opponent: give guidance-to-STEP"),
        ("ddim-x:leap2-from-3", "'ddim-x' is no static sampler"),
        ("ddim-10:best-of-4-at-10", "names step 10, but decisions are at steps 1 to 9"),
        ("best-of-0-at-9", "is no hand-made opponent"),
    ],
)
def test_a_name_that_is_none_is_one_sentence(wrong: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        handmade(wrong, SAMPLER)


@pytest.mark.parametrize(
    ("name", "kept", "used"),
    [("best-of-3-at-9", (1, 2, 0), (3, 3, 3)), ("redraw-below-0.35-at-9", (1, 2, 0), (2, 3, 1))],
)
def test_tries_cost_what_was_looked_at_and_the_kept_one_goes_on(
    name: str, kept: tuple[int, ...], used: tuple[int, ...]
) -> None:
    rollouts, contestant = Scripted(), handmade(name, SAMPLER)
    tickets = tickets_of(contestant, CASES)
    made = draw_cases(
        rollouts, contestant, CASES, judge=lambda episodes: [NamedScores(scores={"clip": 0.5})] * len(episodes)
    )
    assert [one.seed for one in rollouts.whole] == [tickets[3 * case + draw].seed for case, draw in enumerate(kept)]
    assert [one.nfe for one in made.results] == [50 + 10 * (count - 1) for count in used]


def test_the_section_marks_the_front_and_replaces_itself(tmp_path: Path) -> None:
    full = drawn("full", 50, np.linspace(0.2, 0.31, 12))
    others = {"full": full, **{f"ddim-{nfe}": drawn(f"ddim-{nfe}", nfe, np.full(12, clip), full)
                               for nfe, clip in ((5, 0.1), (10, 0.3), (20, 0.2))}}  # fmt: skip
    others["tries"] = replace(
        drawn("tries", 11, np.full(12, 0.4), full), contestant=handmade("best-of-2-at-9", SAMPLER)
    )
    led = agent(SAMPLER, policy=0, name="agent", title="agent", c_nfe=0.04)
    ours = replace(drawn("agent", 12, np.linspace(0.2, 0.3, 12), full), contestant=led)
    section = handmade_section(
        ComparisonResult(agent=ours, others=others), command="addiffusion pareto", machine="a machine"
    )
    rows = {line.split(" | ")[0].lstrip("| "): line for line in section.splitlines() if line.startswith("| ")}
    assert rows["DDIM-5"].split(" | ")[1] == "5.0"
    assert [title for title, line in rows.items() if line.endswith("| CLIP |")] == [
        "DDIM-5", "DDIM-10", "best of 2 at 9"
    ]  # fmt: skip
    (dialled,) = [line for line in section.splitlines() if line.startswith("| 0.04 |")]
    static, drawn_again = "DDIM-10 | 10.0 | -0.050 [", "best of 2 at 9 | 11.0 | -0.150 ["
    assert dialled.startswith(f"| 0.04 | 12.0 | 24% | 0.250 | {static}"), "DDIM-20 costs too much"
    assert f" | {drawn_again}" in dialled
    assert "results/front.png" in section
    page = tmp_path / "results.md"
    page.write_text("# Results\n")
    for _ in range(2):
        write_section(page, section)
    assert page.read_text() == f"# Results\n\n{section}"
    assert page.read_text().count(MARK) == 1
