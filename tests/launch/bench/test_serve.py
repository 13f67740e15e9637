"""What `bench serve` compares: the same requests, all answered, by batches of equal setting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from addiffusion.errors import UsageError
from addiffusion.setting import Setting
from launch.bench.orders import ServingOrder
from launch.bench.overhead import HTTP, SERVE, overheads
from launch.bench.serve import FULL, POLICY, STATIC_FULL, STATIC_POLICY, TITLES, bench_serve, table_of
from launch.bench.static_batches import StaticDrawing, Waiting
from launch.runtime.console import UNSEEN
from serving.drawing import LocalDrawing
from serving.errors import ImageError
from serving.limits import Limits
from serving.messages import Drawn, Order
from tests.serving.toy_server import order, served, toy_model


def test_all_contestants_answer_the_same_requests() -> None:
    result = bench_serve(ServingOrder(images=4, slots=2, steps=5, clients=1, loads=(2.0,)))
    (rows,) = result["loads"].values()
    assert set(rows) == set(TITLES)
    assert rows[FULL]["cost"] == rows[STATIC_FULL]["cost"] == pytest.approx(4.5)
    assert rows[FULL]["scene"] == pytest.approx(rows[STATIC_FULL]["scene"], abs=0.05)  # equal up to rounding
    assert rows[POLICY]["cost"] == rows[STATIC_POLICY]["cost"] <= 5
    assert all(0 < row["p50_ms"] <= row["p95_ms"] for row in rows.values())
    assert rows[POLICY]["policy_over"] == 1
    assert result["http_over_engine_frac"] > 0
    assert table_of(result).row_count == len(rows) + 2


def test_an_address_without_a_server_is_refused_in_one_sentence() -> None:
    with served(toy_model()) as running:
        drawing = LocalDrawing(running.loop, toy_model().facts, Limits())
        host = running.url.removeprefix("http://")
        with pytest.raises(UsageError, match=r"127\.0\.0\.1:9 does not answer"):
            overheads(drawing, {HTTP: host, SERVE: "127.0.0.1:9"}, {"prompt": "a toy scene"}, UNSEEN)


class Batches:
    """Draws nothing, slowly, and notes what it was to draw."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    def __call__(self, batch: Sequence[Waiting]) -> list[Drawn]:
        self.seen.append([one.order.request_id for one in batch])
        time.sleep(0.05)
        if batch[0].order.prompt == "broken":
            raise ValueError("broken")
        zero: Any = dict.fromkeys(("c_nfe", "nfe", "network_evals", "cost", "full_cost", "prompt_tokens"), 0)
        zero |= dict.fromkeys(("seconds", "engine_seconds", "seed"), 0)
        pixels = np.zeros((1, 1, 3), np.uint8)
        return [
            Drawn(request_id=one.order.request_id, image=one.image, pixels=pixels, actions=(), stopped_at=None, **zero)
            for one in batch
        ]


def test_a_static_batch_has_one_setting_and_nobody_joins_it() -> None:
    batches = Batches()
    drawing = StaticDrawing(toy_model().facts, batches, 2)

    async def drawn(one: Order) -> list[Any]:
        return [outcome async for outcome in drawing.draw(one)]

    async def all_drawn() -> list[Any]:
        other = Setting(num_steps=5)
        orders = [order("a"), order("b", setting=other), order("c"), order("d"), order("e", setting=other)]
        orders.append(replace(order("f"), prompt="broken", setting=Setting(num_steps=6)))
        first = asyncio.ensure_future(drawn(order("first")))
        await asyncio.sleep(0.02)
        return await asyncio.gather(first, *map(drawn, orders), return_exceptions=True)

    *answers, broken = asyncio.run(all_drawn())
    drawing.close(5)
    assert batches.seen == [["first"], ["a", "c"], ["b", "e"], ["d"], ["f"]]
    assert all(isinstance(answer[-1], Drawn) for answer in answers)
    assert isinstance(broken, ImageError)
