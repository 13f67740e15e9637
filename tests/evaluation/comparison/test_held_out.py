"""The comparison on held-out prompts, with rollouts whose outcome is known."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from addiffusion.actions import Action
from addiffusion.config import Config, EvaluationSection, RunSection, SamplerSection
from addiffusion.records import METRIC_NAMES, FailedEpisode, Prompt, ScoreReply, ScoreRequest, Ticket
from addiffusion.rollouts import Collected
from evaluation.comparison.held_out import HeldOut, collapse, compare_held_out, evidence_line
from evaluation.comparison.scores import paid_scores
from evaluation.report.training_table import held_out_table, summary
from evaluation.seconds import SECONDS_NOTE
from tests.evaluation.toy_episodes import toy_episode

PROMPTS = tuple(Prompt(prompt_id=number, text=f"scene {number}", tier=1 + number % 2) for number in range(6))
CONFIG = Config(run=RunSection(film_strips=2), evaluation=EvaluationSection(static_steps=10))


class KnownRollouts:
    """The policy needs 10 passes and a tier 2 image 4 more; forced episodes as many as the schedule has."""

    def __init__(self, failing: frozenset[str] = frozenset()) -> None:
        self.calls: list[tuple[list[Ticket], SamplerSection | None]] = []
        self.failing = failing

    def set_weights(self, weights: object, version: int) -> None:
        raise AssertionError("an evaluation does not change the policy")

    def collect(self, tickets: Sequence[Ticket], *, sampler: SamplerSection | None = None) -> Collected:
        self.calls.append((list(tickets), sampler))
        full = (sampler or CONFIG.sampler).num_steps
        episodes = []
        for ticket in tickets:
            nfe = full if ticket.forced is not None else 10 + 4 * (ticket.prompt.tier - 1)
            actions = [] if ticket.forced is not None else [Action.CONTINUE, Action.REFINE, Action.STOP]
            episode = toy_episode(ticket.ticket_id, actions=actions, nfe=nfe, clip=0.2 + nfe / 1000)
            episodes.append(replace(episode, ticket=ticket, network_evals=2 * nfe))
        failed = [episode for episode in episodes if episode.ticket.prompt.text in self.failing]
        return Collected(
            episodes=tuple(episode for episode in episodes if episode not in failed),
            failed=tuple(FailedEpisode(ticket=episode.ticket, reason="made to fail") for episode in failed),
        )


class KnownScoring:
    """Soft scene score 0.9; prompt 0 has no scene."""

    names = METRIC_NAMES
    clip_width = 4
    dino_width = 2

    def embed_text(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        return np.zeros((len(prompts), 4), np.float32)

    def score(self, request: ScoreRequest) -> ScoreReply:
        values = np.tile(np.array([0.9, 1.0], np.float32), (len(request.images), 1))
        lost = [text == "scene 0" for text in request.prompts]
        values[lost] = np.nan
        return ScoreReply(
            names=request.names,
            values=values,
            clip_embedding=np.zeros((len(values), 4), np.float32),
            dino_embedding=np.zeros((len(values), 2), np.float32),
            errors=tuple("no scene" if gone else None for gone in lost),
        )


class SceneBlindScoring(KnownScoring):
    """Full-size scorers know nothing of scenes."""

    names = ("clip",)


def compare(rollouts: KnownRollouts) -> HeldOut:
    return compare_held_out(rollouts, KnownScoring(), prompts=PROMPTS, config=CONFIG, advance=lambda count: None)


def test_all_contestants_draw_the_same_prompts_and_seeds() -> None:
    rollouts = KnownRollouts()
    compare(rollouts)
    pairs = [[(ticket.prompt, ticket.seed) for ticket in tickets] for tickets, _ in rollouts.calls]
    assert pairs[0] == pairs[1] == pairs[2]
    assert len({seed for _, seed in pairs[0]}) == len(PROMPTS)


def test_the_contestants_are_what_they_are_called() -> None:
    rollouts = KnownRollouts()
    compare(rollouts)
    (full, full_sampler), (policy, policy_sampler), (static, static_sampler) = rollouts.calls
    assert full_sampler == policy_sampler == CONFIG.sampler
    assert static_sampler is not None
    assert (static_sampler.num_steps, static_sampler.finish_steps) == (10, 0)
    assert {ticket.forced for ticket in (*full, *static)} == {Action.CONTINUE}
    assert [ticket.explore for ticket in policy] == [False] * 6
    assert [ticket.keep_frames for ticket in policy] == [True, True, False, False, False, False]
    assert all(ticket.reference is not None for ticket in policy)  # `paired` asks for it


def test_the_summary_is_json_with_the_promised_names() -> None:
    result = summary(compare(KnownRollouts()))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["mean_nfe"] == 12
    assert result["mean_network_evals"] == 24
    assert result["nfe_by_tier"] == {"1": 10, "2": 14}
    assert result["scene"] == pytest.approx(0.9)  # over the five prompts that have a scene
    assert result["clip_full"] == pytest.approx(0.25)
    assert result["clip_ddim10"] == pytest.approx(0.21)
    assert result["actions"] == pytest.approx({"continue": 1 / 3, "stop": 1 / 3, "refine": 1 / 3})
    assert result["episodes_dropped"] == 0
    assert result["collapsed"] is False


def test_failed_images_are_counted_not_scored() -> None:
    assert compare(KnownRollouts()).warning() is None
    held_out = compare(KnownRollouts(frozenset({"scene 1"})))
    assert "3 of the held-out images could not be drawn" in (held_out.warning() or "")
    assert (held_out.warning() or "").endswith("the first one: made to fail")
    result = summary(held_out)
    assert result["episodes_dropped"] == 3
    assert result["mean_nfe"] == pytest.approx((10 * 3 + 14 * 2) / 5)


def test_scorers_that_know_no_scenes_are_not_asked_for_them() -> None:
    episodes = compare(KnownRollouts()).episodes
    scores = [one.scores for one in paid_scores(SceneBlindScoring())(episodes)]
    assert len(scores) == len(episodes)
    assert np.isnan([[one[name] for name in METRIC_NAMES] for one in scores]).all()


def test_no_image_at_all_gives_null_not_nan() -> None:
    held_out = compare(KnownRollouts(frozenset(prompt.text for prompt in PROMPTS)))
    result = summary(held_out)
    assert result["mean_nfe"] is None
    assert result["scene"] is None
    assert math.isnan(held_out.result.agent.mean("nfe"))


def test_the_table_has_every_contestant_and_tier() -> None:
    console = Console(width=120, record=True, quiet=True)
    console.quiet = False
    with console.capture() as captured:
        console.print(held_out_table(compare(KnownRollouts()).result))
    text = captured.get()
    for words in ("6 held-out prompts", "trained policy", "always continue (50)", "DDIM-10"):
        assert words in text
    assert text.count("tier 2") == 3
    assert SECONDS_NOTE in " ".join(text.split())
    assert summary(compare(KnownRollouts()))["seconds_note"] == SECONDS_NOTE


def test_cost_has_a_column_where_it_is_not_nfe() -> None:
    """Half of the policy's passes are not guided."""
    held_out = compare(KnownRollouts())
    agent = replace(held_out.result.agent, network_evals=1.5 * held_out.result.agent.nfe)
    cheaper = replace(held_out, result=replace(held_out.result, agent=agent))
    assert [column.header for column in held_out_table(held_out.result).columns][:4] == [
        "sampler",
        "NFE",
        "evals",
        "scene",
    ]
    table = held_out_table(cheaper.result)
    assert [column.header for column in table.columns][:5] == ["sampler", "NFE", "evals", "cost", "scene"]
    costs = {title: float(cost) for title, cost in zip(table.columns[0].cells, table.columns[3].cells, strict=True)}
    assert costs["trained policy"] == pytest.approx(0.75 * agent.mean("nfe"), abs=0.05)
    assert costs["always continue (50)"] == 50
    assert summary(cheaper)["mean_cost"] == pytest.approx(0.75 * agent.mean("nfe"))


@pytest.mark.parametrize(
    ("actions", "nfe", "words"),
    [
        ([[Action.CONTINUE] * 200], [50], "of its decisions are `continue`"),
        ([[Action.STOP]] * 3, [4, 4, 4], "of its decisions are `stop`"),
        ([[Action.CONTINUE, Action.STOP]] * 3, [12, 12, 12], "every image takes 12 NFE"),
    ],
)
def test_a_collapsed_policy_is_called_so(actions: list[list[Action]], nfe: list[int], words: str) -> None:
    taken = zip(actions, nfe, strict=True)
    reason = collapse([toy_episode(row, actions=each, nfe=spent) for row, (each, spent) in enumerate(taken)])
    assert reason is not None
    assert words in reason


def test_a_policy_that_tells_images_apart_has_not_collapsed() -> None:
    assert collapse([toy_episode(0, nfe=8), toy_episode(1, nfe=20)]) is None


def test_the_table_of_real_images_has_the_scores_that_they_have() -> None:
    held_out = compare_held_out(
        KnownRollouts(), SceneBlindScoring(), prompts=PROMPTS, config=CONFIG, advance=lambda count: None
    )
    console = Console(width=120, file=io.StringIO())
    console.print(held_out_table(held_out.result))
    console.print(evidence_line(held_out.result))
    text = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert "scene" not in text
    for words in ("CLIP", "aesth.", "pref."):
        assert words in text
