"""Intervals under the held-out table, from contestants whose scores are known."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from addiffusion.config import RewardSection, SamplerSection
from addiffusion.records import Prompt
from evaluation.comparison.contestants import Contestant, make_cases
from evaluation.comparison.held_out import evidence_json, evidence_line
from evaluation.comparison.metric_table import MetricTable, metric_table
from evaluation.comparison.results import ImageResult
from evaluation.comparison.reward_hacking import reward_hacking
from evaluation.comparison.summary import ComparisonResult

TIERS = (1, 2, 3)


def table(
    title: str,
    tier: Sequence[int],
    nfe: Sequence[int],
    clip: Sequence[float],
    *,
    lost: Sequence[int] = (),
    scene: float = 0.9,
) -> MetricTable:
    """One contestant's.

    Args:
        title: its name.
        tier: of each prompt.
        nfe: of each image.
        clip: score of each image.
        lost: images that could not be drawn.
        scene: score of all images.
    """
    cases = make_cases([Prompt(prompt_id=n, text=f"p{n}", tier=one) for n, one in enumerate(tier)], repeats=1, seed=0)
    results = [
        ImageResult(
            contestant=title, index=case.index, prompt_id=case.index, prompt="", tier=case.prompt.tier, repeat=0,
            seed=case.seed, nfe=nfe[case.index], scores={"scene_soft": scene, "clip": clip[case.index]},
            error="lost" if case.index in lost else None,
        )
        for case in cases
    ]  # fmt: skip
    contestant = Contestant(name=title, title=title, kind="control", sampler=SamplerSection())
    return metric_table(contestant, results, cases, None)


def held_out(count: int = 30, *, tiers: Sequence[int] = TIERS, lost: Sequence[int] = ()) -> ComparisonResult:
    """The policy spends 10 NFE per tier and a few more; its CLIP is 0.01 lower, give or take."""
    noise = np.random.default_rng(0).normal(0, 0.002, count)
    tier = [tiers[number % len(tiers)] for number in range(count)]
    spent = [10 * one + number % 2 for number, one in enumerate(tier)]
    policy = table("policy", tier, spent, (0.29 + noise).tolist(), lost=lost)
    return ComparisonResult(agent=policy, others={"full": table("full run", tier, [50] * count, [0.3] * count)})


def test_the_numbers_for_programs() -> None:
    result = evidence_json(held_out())
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    clip = result["clip_difference"]
    assert clip["mean"] == pytest.approx(-0.01, abs=0.001)
    assert clip["low"] < clip["mean"] < clip["high"] < 0
    assert (clip["level"], clip["count"]) == (0.95, 30)
    assert clip["p_value"] < 0.001
    assert result["scene_difference"] | {"p_value": 1.0} == {
        "mean": 0.0, "low": 0.0, "high": 0.0, "level": 0.95, "p_value": 1.0, "count": 30,
    }  # fmt: skip
    assert result["nfe_tier_spearman"] == pytest.approx(0.97, abs=0.03)


def test_the_line_for_people() -> None:
    found = held_out()
    assert found.agent.mean_by_tier("nfe") == pytest.approx({1: 10.5, 2: 20.5, 3: 30.5})
    line = evidence_line(found)
    assert line.startswith("policy minus full run, 95 % intervals: scene +0.000 [+0.000, +0.000], CLIP -0.0")
    assert "NFE of tier 1/2/3: 10.5 / 20.5 / 30.5 (Spearman +0.9" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("clip", "scene", "weights", "games"),
    [
        (0.31, 0.8, {"clip": 1}, True),
        (0.31, 0.9, {"clip": 1}, False),  # no score that it does not see falls
        (0.30, 0.8, {"clip": 1}, False),  # nothing rises
        (0.31, 0.8, {"clip": 0, "image_reward": 1}, False),  # CLIP does not pay
    ],
)
def test_what_pays_rises_and_what_no_reward_sees_falls(
    clip: float, scene: float, weights: dict[str, float], games: bool
) -> None:
    tier, spent = [1] * 20, [10] * 20
    policy = table("policy", tier, spent, [clip] * 20, scene=scene)
    result = ComparisonResult(agent=policy, others={"full": table("full run", tier, [50] * 20, [0.3] * 20)})
    said = reward_hacking(result, RewardSection.model_validate({"weights": weights}))
    assert bool(said) == games
    assert said is None or ("clip +0.010" in said and "scene_soft -0.100" in said)


def test_images_that_one_contestant_has_lost_are_left_out_of_the_pairs() -> None:
    found = held_out(12, lost=[0])
    comparison = found.against("full", "clip")
    assert comparison is not None
    assert comparison.count == 11
    assert comparison.mean == pytest.approx(np.nanmean(found.agent.value("clip")[1:]))


def test_without_numbers_it_says_so() -> None:
    few = held_out(5)
    assert evidence_json(few)["clip_difference"] is None
    assert "CLIP - (fewer than 6 pairs)" in evidence_line(few)
    one_tier = held_out(tiers=(0, 2))
    assert evidence_json(one_tier)["nfe_tier_spearman"] is None
    assert "(Spearman -)" in evidence_line(held_out(0))
