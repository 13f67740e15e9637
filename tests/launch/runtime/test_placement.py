"""Where roles run, and with how many workers a run starts."""

from __future__ import annotations

import pytest

from addiffusion.config import Config, RolloutSection
from launch.runtime.placement import Offer, place
from learner.recruiting import wanted_workers


def staffing(present: dict[str, float], possible: dict[str, float] | None = None, **rollout: int) -> tuple[int, bool]:
    config = Config(rollout=RolloutSection.model_validate(rollout))
    chosen = place(config, Offer(present=present, possible=possible or {})).staffing
    return chosen.worker_count, chosen.resources == ("rollout",)


@pytest.mark.parametrize(
    ("present", "possible", "rollout", "expected"),
    [
        ({"CPU": 2}, {}, {}, (2, False)),  # one machine: as configured, anywhere
        ({"rollout": 3}, {}, {}, (3, True)),  # a worker for every unit
        ({"rollout": 3}, {}, {"max_workers": 2}, (2, True)),
        ({"rollout": 1}, {}, {"workers": 4}, (1, True)),  # the other three wait for nodes
        ({"rollout": 1}, {"rollout": 8}, {"workers": 4}, (1, True)),
        ({}, {"rollout": 8}, {}, (1, True)),  # the autoscaler will bring the first
    ],
)
def test_a_run_starts_with_the_workers_that_have_room(
    present: dict[str, float], possible: dict[str, float], rollout: dict[str, int], expected: tuple[int, bool]
) -> None:
    assert staffing(present, possible, **rollout) == expected


def test_the_reward_service_goes_where_it_is_offered() -> None:
    offer = Offer(present={"reward": 1.0}, possible={})
    assert place(Config(), offer).reward_resources.keys() == {"reward"}
    assert place(Config(), Offer(present={}, possible={})).reward_resources == {}


def test_as_many_workers_as_asked_for_or_offered() -> None:
    assert wanted_workers(RolloutSection(workers=2), 0) == 2
    assert wanted_workers(RolloutSection(workers=2), 5) == 5
    assert wanted_workers(RolloutSection(workers=2, max_workers=3), 5) == 3
