"""The reward benchmark's arithmetic; the figures themselves are no test's business."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from rich.console import Console

from addiffusion.config import ScorersSection
from addiffusion.records import ScoreRequest
from addiffusion.scorers.factory import load_suite
from launch.bench.client import call_for, requests, together
from launch.bench.orders import RewardOrder
from launch.bench.reward import (
    CLIENTS,
    DIRECT,
    ONE_BY_ONE,
    BenchResult,
    best_batch,
    service_name,
    table,
)
from launch.bench.rounds import Measured, Ratio, Turn, measured, ratio, take_turns
from tests.addiffusion.scorers.forwards import image_forwards

SERVICES = [service_name(clients) for clients in CLIENTS]


def same(value: float) -> Ratio:
    return Ratio(median=value, low=value - 0.05, high=value + 0.05)


RESULT = BenchResult(
    order=RewardOrder(scorers="embedded", device="cpu", size=None, request_images=8, seconds=1.0, rounds=3),
    image_size=64,
    best_batch=16,
    request_images=8,
    rows={
        DIRECT: Measured(images_per_s=200.0, p50_ms=80.0, p95_ms=90.0),
        **{name: Measured(images_per_s=190.0, p50_ms=1.0, p95_ms=2.0) for name in SERVICES},
        ONE_BY_ONE: Measured(images_per_s=50.0, p50_ms=20.0, p95_ms=30.0),
    },
    over_direct={DIRECT: same(1.0), **{name: same(0.95) for name in SERVICES}, ONE_BY_ONE: same(0.25)},
    over_one_by_one={DIRECT: same(4.0), **{name: same(3.8) for name in SERVICES}, ONE_BY_ONE: same(1.0)},
)


def turn(rate: float, *latencies_s: float) -> Turn:
    return Turn(image_count=round(2 * rate), seconds=2.0, latencies_s=latencies_s or (0.1,))


def test_the_last_line_has_the_promised_ratios() -> None:
    line = json.loads(json.dumps(RESULT.to_json()))
    assert line["service_over_direct"] == {"1": 0.95, "2": 0.95, "4": 0.95}
    assert line["service_over_one_by_one"] == {"1": 3.8, "2": 3.8, "4": 3.8}
    assert line["service_over_direct_range"]["4"] == pytest.approx([0.9, 1.0])
    assert line["direct"] == {"images_per_s": 200.0, "p50_ms": 80.0, "p95_ms": 90.0}


def test_the_table_has_a_row_for_each_way() -> None:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(table(RESULT))
    text = " ".join(capture.get().split())
    assert "service, 4 clients 190.0 1.0 2.0 0.95 (0.90-1.00) 3.80" in text
    assert "one by one 50.0 20.0 30.0 0.25 (0.20-0.30) 1.00" in text


def test_contestants_take_turns_and_every_second_round_runs_backwards() -> None:
    order: list[tuple[int, str]] = []

    def contestant(rate: float) -> Callable[[], Turn]:
        return lambda: turn(rate)

    turns = take_turns({"a": contestant(1), "b": contestant(2)}, 3, lambda *now: order.append(now))
    assert order == [(1, "a"), (1, "b"), (2, "b"), (2, "a"), (3, "a"), (3, "b")]
    assert [each.images_per_s for each in turns["b"]] == [2, 2, 2]


def test_a_machine_that_slows_down_leaves_the_ratio_alone() -> None:
    moods = (1.0, 0.5, 0.1, 0.9, 0.3)
    direct = [turn(100 * mood) for mood in moods]
    served = [turn(90 * mood) for mood in moods]
    assert ratio(served, direct).median == pytest.approx(0.9)
    served[0] = turn(10)
    assert ratio(served, direct) == Ratio(median=pytest.approx(0.9), low=pytest.approx(0.1), high=pytest.approx(0.9))


def test_a_row_is_the_median_turn_and_the_latency_of_all_calls() -> None:
    row = measured([turn(10, 0.1, 0.2), turn(30, 0.3), turn(20, 0.4, 0.5)])
    assert (row.images_per_s, row.p50_ms) == (20.0, pytest.approx(300.0))


def test_clients_that_worked_together_are_one_turn() -> None:
    both = together([Turn(image_count=6, seconds=1.0, latencies_s=(1.0,)), turn(3, 0.5)])
    assert both == Turn(image_count=12, seconds=2.0, latencies_s=(1.0, 0.5))


def test_load_is_distinct_images_of_the_asked_size() -> None:
    work = requests(0, 8, 32)
    assert [request.images.shape for request in work] == [(8, 32, 32, 3)] * 8
    assert len({request.images.tobytes() for request in work}) == 8
    assert not np.array_equal(work[0].images, requests(1, 8, 32)[0].images)


def test_calls_go_on_until_their_time_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("launch.bench.client.time.perf_counter", lambda: now[0])

    def score(request: ScoreRequest) -> None:
        now[0] += 0.4

    done = call_for(score, requests(0, 5, 8), 1.0)
    assert done.latencies_s == pytest.approx((0.4, 0.4, 0.4))
    assert (done.image_count, done.seconds) == (15, pytest.approx(1.2))


def test_of_equal_batch_sizes_the_largest_is_the_best() -> None:
    assert best_batch({4: 100.0, 8: 120.0, 16: 118.0, 32: 110.0}) == 16


def test_the_size_of_a_pass_can_change_and_the_models_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    suite = load_suite(ScorersSection(device="cpu", batch_images=4))
    seen = image_forwards(suite.clip, monkeypatch)
    single = suite.with_batch_images(1)
    (request,) = requests(0, 3, 64)[:1]
    np.testing.assert_allclose(single.score(request).values, suite.score(request).values, atol=1e-4)
    assert single.clip is suite.clip
    assert len(seen) == 3 + 1
