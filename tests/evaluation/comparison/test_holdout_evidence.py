"""Intervals under the held-out table, from arms whose scores are known."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from addiffusion.records import Episode
from evaluation.comparison.holdout import Arm, ArmResult, Holdout
from evaluation.comparison.holdout_evidence import evidence
from tests.evaluation.toy_episodes import toy_episode

TIERS = (1, 2, 3)


def arm(name: str, episodes: Sequence[Episode], soft: float) -> ArmResult:
    return ArmResult(
        arm=Arm(name=name, title=name),
        episodes=tuple(episodes),
        scene=np.tile(np.array([soft, 1.0], np.float32), (len(episodes), 1)),
        seconds=0.1,
        dropped_count=0,
    )


def holdout(count: int = 30, *, tiers: Sequence[int] = TIERS) -> Holdout:
    """The policy spends 10 NFE per tier and a few more; its CLIP is 0.01 lower, give or take."""
    noise = np.random.default_rng(0).normal(0, 0.002, count)
    tier = [tiers[number % len(tiers)] for number in range(count)]
    policy = [
        toy_episode(number, tier=tier[number], nfe=10 * tier[number] + number % 2, clip=0.29 + noise[number])
        for number in range(count)
    ]
    full = [toy_episode(number, tier=tier[number], nfe=50, clip=0.3) for number in range(count)]
    return Holdout(policy=arm("policy", policy, 0.9), full=arm("full run", full, 0.9), static=arm("static", full, 0.9))


def test_the_numbers_for_programs() -> None:
    result = evidence(holdout()).as_json()
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
    found = evidence(holdout())
    assert found.nfe_by_tier == pytest.approx({1: 10.5, 2: 20.5, 3: 30.5})
    line = found.line()
    assert line.startswith("policy minus full run, 95 % intervals: scene +0.000 [+0.000, +0.000], CLIP -0.0")
    assert "NFE of tier 1/2/3: 10.5 / 20.5 / 30.5 (Spearman +0.9" in line
    assert "\n" not in line


def test_images_that_one_arm_has_lost_are_paired_by_ticket() -> None:
    whole = holdout(12)
    gone = replace(whole.policy, episodes=whole.policy.episodes[1:], scene=whole.policy.scene[1:])
    comparison = evidence(replace(whole, policy=gone)).differences[1]
    assert comparison is not None
    assert comparison.count == 11
    expected = np.mean([episode.scores[-1, 0] for episode in gone.episodes])
    assert comparison.mean == pytest.approx(expected)


def test_without_numbers_it_says_so() -> None:
    few = evidence(holdout(5))
    assert few.as_json()["clip_difference"] is None
    assert "CLIP - (fewer than 6 pairs)" in few.line()
    one_tier = evidence(holdout(tiers=(0, 2)))
    assert math.isnan(one_tier.nfe_tier_spearman)
    assert one_tier.as_json()["nfe_tier_spearman"] is None
    empty = evidence(holdout(0))
    assert "(Spearman -)" in empty.line()
