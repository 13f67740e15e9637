"""What `bench pipeline` compares: the same images, by as many passes, nothing decoded before the end."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from addiffusion import Policy
from launch.bench.orders import PipelineOrder
from launch.bench.pipeline import bench_pipeline, table_of

THOUGHT_S = 0.2


def test_both_draw_the_same_images() -> None:
    result = bench_pipeline(PipelineOrder(images=2, steps=4, rounds=1))
    assert result["largest_difference"] < 1e-3
    assert result["decoded_on_the_way_count"] == 0
    assert result["stock_s_per_image"] > 0
    assert abs(result["overhead_frac"]) < 2
    assert np.isfinite(result["outside_frac"])
    assert table_of(result).row_count == 4


def test_what_is_outside_of_the_network_is_told_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that thinks for longer than a pass takes: the whole call grows by it, and so does what is outside."""
    plain = bench_pipeline(PipelineOrder(images=2, steps=4, rounds=1))

    def slow(policy: Policy) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        def act(phi: NDArray[np.float32]) -> NDArray[np.float32]:
            until = time.process_time() + THOUGHT_S
            while time.process_time() < until:
                pass
            return quick(phi)

        quick = actor(policy)
        return act

    actor = Policy.actor
    monkeypatch.setattr(Policy, "actor", slow)
    thoughtful = bench_pipeline(PipelineOrder(images=2, steps=4, rounds=1))
    added = (thoughtful["outside_frac"] - plain["outside_frac"]) * thoughtful["stock_s_per_image"] * 2
    assert added > 2 * THOUGHT_S  # three decisions, less what noise there is
