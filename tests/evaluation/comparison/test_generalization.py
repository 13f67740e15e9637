"""The return on training pairs against the return on held-out prompts, from episodes whose rewards are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from addiffusion.actions import Action
from addiffusion.config import Config, SamplerSection
from addiffusion.records import Episode, FailedEpisode, Prompt, Ticket
from addiffusion.rollouts import Collected
from evaluation.comparison.generalization import GeneralizationGap, generalization_gap
from learner.tickets import PoolEntry
from tests.evaluation.toy_episodes import toy_episode

CONFIG = Config()


def earning(returns: Sequence[float]) -> list[Episode]:
    """Episodes of one decision each, with these rewards."""
    return [
        replace(toy_episode(row, actions=[Action.STOP], nfe=10), terms=np.array([[value, 0, 0, 0]], np.float32))
        for row, value in enumerate(returns)
    ]


class KnownRollouts:
    """Every image earns what its pair's seed says, in hundredths; below -100 it fails."""

    def __init__(self) -> None:
        self.tickets: list[Ticket] = []

    def set_weights(self, weights: object, version: int) -> None:
        raise AssertionError("an evaluation does not change the policy")

    def collect(self, tickets: Sequence[Ticket], *, sampler: SamplerSection | None = None) -> Collected:
        assert sampler is None
        self.tickets = list(tickets)
        fine = [ticket for ticket in tickets if ticket.seed >= -100]
        episodes = earning([ticket.seed / 100 for ticket in fine])
        return Collected(
            episodes=tuple(replace(one, ticket=ticket) for one, ticket in zip(episodes, fine, strict=True)),
            failed=tuple(
                FailedEpisode(ticket=ticket, reason="It was bound to.") for ticket in tickets if ticket not in fine
            ),
        )


def gap(trained: Sequence[int], held_out: Sequence[float]) -> tuple[GeneralizationGap, KnownRollouts]:
    pool = [
        PoolEntry(prompt=Prompt(prompt_id=row, text=f"scene {row}", tier=1), seed=seed)
        for row, seed in enumerate(trained)
    ]
    rollouts = KnownRollouts()
    return generalization_gap(rollouts, pool, earning(held_out), CONFIG), rollouts


def test_what_is_learned_by_heart_is_said() -> None:
    found, _ = gap(list(range(50, 80)), [value / 100 for value in range(-90, -60)])
    assert (found.trained, found.held_out) == pytest.approx((0.645, -0.755))
    assert found.memorised
    assert "prompts.train_count" in str(found.advice())
    assert f"{found.trained:+.2f} on training pairs, {found.held_out:+.2f} on held-out prompts" in found.line()


def test_chance_needs_no_advice() -> None:
    found, _ = gap(list(range(-15, 15)), [value / 100 for value in range(-14, 16)])
    assert found.interval is not None
    assert found.interval.low < 0 < found.interval.high
    assert found.advice() is None


def test_doing_better_on_new_prompts_needs_no_advice() -> None:
    assert gap(list(range(10)), [1.0 + value / 100 for value in range(10)])[0].advice() is None


def test_as_many_training_pairs_as_held_out_images_with_the_likeliest_actions() -> None:
    _, rollouts = gap(list(range(20)), [0.0] * 8)
    assert [ticket.seed for ticket in rollouts.tickets] == list(range(8))
    assert not any(ticket.explore for ticket in rollouts.tickets)
    assert {ticket.c_nfe for ticket in rollouts.tickets} == {CONFIG.reward.c_nfe}


def test_images_that_fail_are_counted_and_left_out() -> None:
    found, _ = gap([10, -200, 30, 50, -300, 70], [0.0] * 6)
    assert found.dropped_count == 2
    assert found.trained == pytest.approx(0.4)


def test_too_few_images_have_no_interval() -> None:
    found, _ = gap(list(range(20)), [0.0] * 3)
    assert found.interval is None
    assert found.advice() is None
    assert found.as_json()["generalization_gap_ci"] is None


def test_no_image_is_null_not_nan() -> None:
    found, _ = gap([], [])
    assert json.loads(json.dumps(found.as_json(), allow_nan=False)) == {
        "return_training": None, "return_held_out": None, "generalization_gap_ci": None,
    }  # fmt: skip
    assert "- on training pairs" in found.line()
