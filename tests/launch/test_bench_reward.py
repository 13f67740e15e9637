"""The reward benchmark's arithmetic; the figures themselves are no test's business."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rich.console import Console

from addiffusion.records import ScoreRequest
from launch.bench_client import call_for, requests
from launch.bench_reward import BenchOrder, BenchResult, Measured, best_batch, table

RESULT = BenchResult(
    order=BenchOrder(scorers="embedded", device="cpu", size=None, seconds=1.0),
    image_size=64,
    best_batch=16,
    direct=Measured(images_per_s=200.0, p50_ms=80.0, p95_ms=90.0),
    service={clients: Measured(images_per_s=190.0, p50_ms=1.0, p95_ms=2.0) for clients in (1, 2, 4)},
    one_by_one=Measured(images_per_s=50.0, p50_ms=20.0, p95_ms=30.0),
)


def test_the_last_line_has_the_promised_ratios() -> None:
    line = json.loads(json.dumps(RESULT.to_json()))
    assert line["service_over_direct"] == {"1": 0.95, "2": 0.95, "4": 0.95}
    assert line["service_over_one_by_one"] == {"1": 3.8, "2": 3.8, "4": 3.8}
    assert line["direct"] == {"images_per_s": 200.0, "p50_ms": 80.0, "p95_ms": 90.0}


def test_the_table_has_a_row_for_each_way() -> None:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table(RESULT))
    text = " ".join(capture.get().replace("│", " ").split())
    assert "service, 4 clients 190.0 1.0 2.0 0.95 3.80" in text
    assert "one image at a time 50.0 20.0 30.0 0.25 1.00" in text


def test_load_is_distinct_images_of_the_asked_size() -> None:
    work = requests(0, 8, 32)
    assert [request.images.shape for request in work] == [(8, 32, 32, 3)] * 8
    assert len({request.images.tobytes() for request in work}) == 8
    assert not np.array_equal(work[0].images, requests(1, 8, 32)[0].images)


def test_calls_go_on_until_their_time_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("launch.bench_client.time.perf_counter", lambda: now[0])

    def score(request: ScoreRequest) -> None:
        now[0] += 0.4

    assert call_for(score, requests(0, 1, 8), 1.0) == pytest.approx([0.4, 0.4, 0.4])


def test_of_equal_batch_sizes_the_largest_is_the_best() -> None:
    assert best_batch({4: 100.0, 8: 120.0, 16: 118.0, 32: 110.0}) == 16
