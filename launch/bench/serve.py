"""`addiffusion bench serve`: one continuous batch under a policy against the ways images are usually served."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from addiffusion import AdaptivePipeline
from addiffusion.assets import SHIPPED_LATENT
from addiffusion.embedded.world.captions import parse_caption
from addiffusion.embedded.world.checker import check
from addiffusion.errors import RolloutError
from addiffusion.pipeline.adaptive import EMBEDDED
from addiffusion.prompts import load_prompts
from evaluation.tables import Table
from launch.bench.load import PATIENCE_S
from launch.bench.orders import ServingOrder
from launch.bench.overhead import HTTP, SERVE, drawn, overheads
from launch.bench.rounds import Turn, measured, ratio, shown_turns
from launch.bench.static_batches import StaticDrawing, by_pipeline
from launch.runtime.console import UNSEEN, Stage
from serving.drawing import Drawing, LocalDrawing
from serving.limits import Limits
from serving.loop import EngineLoop
from serving.model import ServedModel, load_served_model
from serving.security import Access
from serving.web import WebSettings, http_server, make_app

POLICY, FULL, STATIC_FULL, STATIC_POLICY = "policy", "full", "static_full", "static_policy"
TITLES: Final = {
    POLICY: "this server, the policy",
    FULL: "this server, full runs",
    STATIC_FULL: "stock diffusers, static batches",
    STATIC_POLICY: "the policy, static batches",
}
_SCALES: Final = (2.0, 3.0)
"""Guidance of requests: two of those that the policy was trained at."""
_HEAD_START_S: Final = 0.5
_ALL_S: Final = PATIENCE_S
"""Longest wait for all requests of a turn."""
_ADDED: Final = {
    "http_overhead_frac": "HTTP over direct calls",
    "http_over_engine_frac": "HTTP over its engine",
    "serve_over_engine_frac": "Ray Serve over its engine",
}
"""What ways to the engine add, in the result and in words."""
_LIMITS: Final = replace(Limits(), waiting_images=100_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadTurn(Turn):
    """A contestant under a load."""

    scene: float
    """Mean scene score."""
    cost: float
    """Mean cost."""


def bench_serve(order: ServingOrder, console: Console = UNSEEN) -> dict[str, Any]:
    """Images/s, latency and scene score of every contestant at every load, and their ratios.

    Raises:
        RolloutError: a request was not answered by an image.
    """
    with ExitStack() as stack:
        with Stage(console, "loading the models"):
            model = load_served_model(SHIPPED_LATENT, overrides=[f"rollout.slots={order.slots}"])
            pipe = AdaptivePipeline.from_pretrained(EMBEDDED, policy=SHIPPED_LATENT)
            pipe.set_progress_bar_config(disable=True)
        continuous = stack.enter_context(_continuous(model))
        static = StaticDrawing(model.facts, by_pipeline(pipe, model.facts, model.backbone.latent_shape), order.slots)
        stack.callback(static.close, _ALL_S)
        addresses = [stack.enter_context(_listening(drawing)) for drawing in (continuous, static)]
        bodies = _bodies(order, model)
        with Stage(console, "finding the capacity"):
            capacity = _capacity(continuous, bodies)
            _capacity(static, bodies[: order.slots])  # what is slow once is over
        ways = {HTTP: addresses[0]} | ({} if order.deployed is None else {SERVE: order.deployed})
        overhead = overheads(continuous, ways, bodies[0], console)
        turns = {
            load: shown_turns(_contestants(order, addresses, bodies, load * capacity), order.rounds, console)
            for load in order.loads
        }
    return {
        "images": order.images,
        "slots": order.slots,
        "quality": order.quality,
        "rounds": order.rounds,
        "capacity_images_s": capacity,
        **overhead,
        "loads": {str(load): _said(each) for load, each in turns.items()},
    }


def table_of(result: Mapping[str, Any]) -> Table:
    """The result for people."""
    title = f"embedded, {SHIPPED_LATENT}, {result['slots']} images at once, {result['images']} requests, mixed settings"
    title += f", quality {result['quality']}"
    table = Table(title=title, box=None, header_style="bold", title_justify="left")
    table.add_column("server", no_wrap=True)
    for name in ("load", "images/s", "p50 s", "p95 s", "scene", "cost", "policy over it"):
        table.add_column(name, justify="right")
    for load, rows in result["loads"].items():
        for name, row in rows.items():
            numbers = (row["images_per_s"], row["p50_ms"] / 1000, row["p95_ms"] / 1000)
            table.add_row(
                TITLES[name],
                load,
                *(f"{number:.2f}" for number in numbers),
                f"{row['scene']:.3f}",
                f"{row['cost']:.1f}",
                f"{row['policy_over']:.2f}",
            )
    for name, words in _ADDED.items():
        if name in result:
            table.add_row(words, "", *[""] * 5, f"{100 * result[name]:+.1f}%")
    return table


def _said(turns: Mapping[str, Sequence[LoadTurn]]) -> dict[str, dict[str, float]]:
    """Every contestant at one load."""
    rows: dict[str, dict[str, float]] = {}
    for name, each in turns.items():
        row = measured(each)
        rows[name] = {
            "images_per_s": row.images_per_s,
            "p50_ms": row.p50_ms,
            "p95_ms": row.p95_ms,
            "scene": float(np.mean([turn.scene for turn in each])),
            "cost": float(np.mean([turn.cost for turn in each])),
            "policy_over": ratio(turns[POLICY], each).median,
        }
    return rows


# ---------------------------------------------------------------- servers


@contextmanager
def _continuous(model: ServedModel) -> Iterator[LocalDrawing]:
    loop = EngineLoop(model, limits=_LIMITS)
    loop.start()
    try:
        yield LocalDrawing(loop, model.facts, _LIMITS)
    finally:
        loop.close(within_s=_ALL_S)


@contextmanager
def _listening(drawing: Drawing) -> Iterator[str]:
    """The app of `addiffusion serve` before a drawing; its address."""
    app = make_app(drawing, WebSettings(access=Access(key=None, loopback=True), limits=_LIMITS), bytes)
    server = http_server(app, _ALL_S, ended=lambda: False)
    thread = threading.Thread(target=server.run, name="http", daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
        if not thread.is_alive():
            raise RolloutError("The server of the benchmark has ended before it listened.")
    try:
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        yield f"{host}:{port}"
    finally:
        server.should_exit = True
        thread.join(_ALL_S)


# ---------------------------------------------------------------- load


def _bodies(order: ServingOrder, model: ServedModel) -> list[dict[str, Any]]:
    """Requests of held-out prompts, one image each, their settings in turn."""
    section, steps = model.config.prompts, (order.steps, order.steps - order.steps // 5)
    settings = [{"num_inference_steps": count, "guidance_scale": scale} for count in steps for scale in _SCALES]
    prompts = load_prompts(section, split=section.test_split, count=order.images, seed=0)
    return [
        {
            "prompt": prompts[number % len(prompts)].text,
            "seed": number,
            "quality": order.quality,
            **settings[number % len(settings)],
        }
        for number in range(order.images)
    ]


def _contestants(
    order: ServingOrder, addresses: Sequence[str], bodies: Sequence[Mapping[str, Any]], rate: float
) -> dict[str, Callable[[], LoadTurn]]:
    """All of them under the same arrivals."""
    gaps = np.random.default_rng(0).exponential(1 / rate, len(bodies))
    arrivals = np.cumsum(gaps) - gaps[0]
    full = [{**body, "full_run": True} for body in bodies]
    continuous, static = addresses
    return {
        POLICY: partial(_load, order, continuous, bodies, arrivals),
        FULL: partial(_load, order, continuous, full, arrivals),
        STATIC_FULL: partial(_load, order, static, full, arrivals),
        STATIC_POLICY: partial(_load, order, static, bodies, arrivals),
    }


def _load(
    order: ServingOrder, address: str, bodies: Sequence[Mapping[str, Any]], arrivals: NDArray[np.float64]
) -> LoadTurn:
    """One turn: all requests at their times, from client processes."""
    command = [sys.executable, "-m", "launch.bench.load"]
    clients = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own module
        for _ in range(min(order.clients, len(bodies)))
    ]
    begin, shares = time.time() + _HEAD_START_S, len(clients)
    try:
        for number, client in enumerate(clients):
            requests = list(zip(arrivals.tolist()[number::shares], bodies[number::shares], strict=True))
            assert client.stdin is not None
            json.dump({"address": address, "begin": begin, "requests": requests}, client.stdin)
            client.stdin.close()
            client.stdin = None
        answers = [json.loads(client.communicate(timeout=_ALL_S)[0]) for client in clients]
    finally:
        for client in clients:
            client.kill()
            client.wait()
    told = [answers[number % shares][number // shares] for number in range(len(bodies))]
    return _turn(told, [str(body["prompt"]) for body in bodies])


def _turn(told: Sequence[Mapping[str, Any]], prompts: Sequence[str]) -> LoadTurn:
    for one in told:
        if "image" not in one:
            raise RolloutError(f"A request of the benchmark was not answered by an image: {one.get('error', one)}")
    images = [np.asarray(Image.open(io.BytesIO(base64.b64decode(one["image"])))) for one in told]
    scenes = [check(image, parse_caption(prompt)).soft for image, prompt in zip(images, prompts, strict=True)]
    return LoadTurn(
        image_count=len(told),
        seconds=max(one["done"] for one in told) - min(one["sent"] for one in told),
        latencies_s=tuple(one["done"] - one["sent"] for one in told),
        scene=float(np.mean(scenes)),
        cost=float(np.mean([one["record"]["cost"] for one in told])),
    )


# ---------------------------------------------------------------- direct calls


def _capacity(drawing: Drawing, bodies: Sequence[Mapping[str, Any]]) -> float:
    """Images per second where all of them wait from the beginning."""

    async def all_of_them() -> None:
        await asyncio.gather(*(drawn(drawing, body) for body in bodies))

    begun = time.perf_counter()
    asyncio.run(all_of_them())
    return len(bodies) / (time.perf_counter() - begun)
