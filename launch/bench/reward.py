"""`addiffusion bench reward`: what the service costs over the scorers themselves, and saves over a plain loop."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final
from uuid import uuid4

import numpy as np
import ray
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from addiffusion.config import Config, ScorersSection
from addiffusion.configuration.files import load_config
from addiffusion.embedded.world.scenes import IMAGE_SIZE
from addiffusion.records import SCORE_NAMES, ScoreRequest
from addiffusion.scorers.factory import load_suite
from addiffusion.scorers.suite import ScorerSuite
from addiffusion.threads import torch_threads
from evaluation.tables import Table
from launch.bench.client import BenchClient, call_for, requests, together
from launch.bench.orders import RewardOrder
from launch.bench.rounds import Measured, Ratio, Turn, measured, ratio, shown_turns
from launch.runtime.cluster import NAMESPACE, ray_running
from launch.runtime.console import Stage
from reward_service.actor import Start, get_or_create, stop
from reward_service.client import RemoteScoring

BATCHES: Final = {"cpu": (4, 8, 16, 32), "cuda": (16, 32, 64, 128)}
"""Sizes of a pass that are tried, by type of device."""
CLIENTS: Final = (1, 2, 4)
DIRECT: Final = "direct"
ONE_BY_ONE: Final = "one by one"
_SEARCH_ROUNDS: Final = 3
_START_TIMEOUT_S: Final = 180.0
_HEAD_START_S: Final = 0.1
"""From the order to the clients' common beginning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """All measurements."""

    order: RewardOrder
    image_size: int
    best_batch: int
    request_images: int
    rows: Mapping[str, Measured]
    """By contestant."""
    over_direct: Mapping[str, Ratio]
    over_one_by_one: Mapping[str, Ratio]

    def to_json(self) -> dict[str, Any]:
        """For the last line."""
        names = {str(clients): service_name(clients) for clients in CLIENTS}
        over = {"service_over_direct": self.over_direct, "service_over_one_by_one": self.over_one_by_one}
        ranges = {
            f"{key}_range": {clients: (ratios[name].low, ratios[name].high) for clients, name in names.items()}
            for key, ratios in over.items()
        }
        return {
            "scorers": self.order.scorers,
            "device": self.order.device,
            "size": self.image_size,
            "rounds": self.order.rounds,
            "direct_batch": self.best_batch,
            "request_images": self.request_images,
            "direct": asdict(self.rows[DIRECT]),
            "service": {clients: asdict(self.rows[name]) for clients, name in names.items()},
            "one_by_one": asdict(self.rows[ONE_BY_ONE]),
            **{key: {clients: ratios[name].median for clients, name in names.items()} for key, ratios in over.items()},
            **ranges,
        }


def service_name(clients: int) -> str:
    """Of the contestant."""
    return f"service, {clients} client{'s'[: clients > 1]}"


def run(order: RewardOrder, console: Console, overrides: Sequence[str] = ()) -> BenchResult:
    """Measure all contestants in turns; nothing is cached, and every process has one torch thread.

    Raises:
        UsageError: the scorers can't be loaded, or Ray can't be started.
    """
    config = _config(order, overrides)
    size = order.size or (IMAGE_SIZE if order.scorers == "embedded" else 512)
    with torch_threads(1), ExitStack() as stack:
        with Stage(console, "loading the scorers"):
            suite = _loader(order)(config.scorers)
        best = _search(suite, size, order, console)
        sent = order.request_images or best
        with Stage(console, "starting the service"):
            scoring = stack.enter_context(_served(config, order, best))
        with Stage(console, "warming up"):
            contestants = {
                DIRECT: _direct(suite.with_batch_images(best), best, size, order.seconds),
                **_clients(scoring, sent, size, order.seconds),
                ONE_BY_ONE: _one_by_one(suite.with_batch_images(1), size, order.seconds),
            }
        turns = shown_turns(contestants, order.rounds, console)
    return BenchResult(
        order=order,
        image_size=size,
        best_batch=best,
        request_images=sent,
        rows={name: measured(each) for name, each in turns.items()},
        over_direct={name: ratio(each, turns[DIRECT]) for name, each in turns.items()},
        over_one_by_one={name: ratio(each, turns[ONE_BY_ONE]) for name, each in turns.items()},
    )


def table(result: BenchResult) -> Table:
    """What was measured, as people read it; ratios are medians over rounds, in brackets the extremes."""
    order = result.order
    passes = f"passes of {result.best_batch} images, {result.request_images} a request, {order.rounds} rounds"
    title = f"{order.scorers} scorers on {order.device}, {result.image_size} px: {passes}"
    shown = Table(title=title, box=None, header_style="bold", title_justify="left")
    shown.add_column(no_wrap=True)
    for name in ("images/s", "p50 ms", "p95 ms", "over direct", "/ one by one"):
        shown.add_column(name, justify="right")
    for name, row in result.rows.items():
        direct, saved = result.over_direct[name], result.over_one_by_one[name]
        numbers = (f"{number:.1f}" for number in (row.images_per_s, row.p50_ms, row.p95_ms))
        shown.add_row(
            name, *numbers, f"{direct.median:.2f} ({direct.low:.2f}-{direct.high:.2f})", f"{saved.median:.2f}"
        )
    return shown


def load_random(section: ScorersSection) -> ScorerSuite:
    """The full-size suite with random weights, for the actor's process."""
    from addiffusion.scorers.pretrained import random_suite  # noqa: PLC0415 - its libraries take seconds to import

    return random_suite(section)


def best_batch(images_per_s: Mapping[int, float]) -> int:
    """The largest batch size within 3 % of the fastest."""
    fastest = max(images_per_s.values())
    return max(batch for batch, rate in images_per_s.items() if rate >= 0.97 * fastest)


def _config(order: RewardOrder, overrides: Sequence[str]) -> Config:
    kind = "embedded" if order.scorers == "embedded" else "pretrained"
    fixed = (f"scorers.kind={kind}", f"scorers.device={order.device}", "scorers.cache_images=0")
    return load_config(overrides=(*fixed, *overrides))


def _loader(order: RewardOrder) -> Callable[[ScorersSection], ScorerSuite]:
    return load_random if order.scorers == "random" else load_suite


def _search(suite: ScorerSuite, size: int, order: RewardOrder, console: Console) -> int:
    """The best size of a pass for the scorers called directly."""
    batches = {f"passes of {batch}": batch for batch in BATCHES[suite.device.type]}
    contestants = {
        name: _direct(suite.with_batch_images(batch), batch, size, order.seconds / 4) for name, batch in batches.items()
    }
    turns = shown_turns(contestants, _SEARCH_ROUNDS, console)
    return best_batch({batch: measured(turns[name]).images_per_s for name, batch in batches.items()})


def _direct(suite: ScorerSuite, batch: int, size: int, seconds: float) -> Callable[[], Turn]:
    return _repeated(suite.score, batch, size, seconds)


def _one_by_one(suite: ScorerSuite, size: int, seconds: float) -> Callable[[], Turn]:
    """The predecessor's style: a PIL image per call, and each scorer runs all the models it needs by itself."""
    shares = [((name,), ()) for name in SCORE_NAMES] + [((), (name,)) for name in ("clip", "dino")]

    def score(request: ScoreRequest) -> None:
        for names, embeddings in shares:
            images = _through_pil(request.images[0])[None]
            suite.score(ScoreRequest(images=images, prompts=request.prompts, names=names, embeddings=embeddings))

    return _repeated(score, 1, size, seconds)


def _repeated(score: Callable[[ScoreRequest], Any], batch: int, size: int, seconds: float) -> Callable[[], Turn]:
    work = requests(0, batch, size)
    score(work[0])
    return lambda: call_for(score, work, seconds)


@contextmanager
def _served(config: Config, order: RewardOrder, batch: int) -> Iterator[RemoteScoring]:
    """The service, in a Ray of its own; it idles while others have their turn."""
    with ray_running(config):
        scoring = get_or_create(
            config.scorers.model_copy(update={"batch_images": batch}),
            namespace=NAMESPACE,
            name=f"bench-{uuid4().hex[:8]}",
            load=_loader(order),
            start=Start(timeout_s=config.cluster.start_timeout_s),
        )
        yield scoring
        stop(scoring)


def _clients(scoring: RemoteScoring, sent: int, size: int, seconds: float) -> dict[str, Callable[[], Turn]]:
    """Client processes that each send one request after another, as rollout workers do; by how many take part."""
    client: Any = ray.remote(BenchClient).options(num_cpus=0.01)
    workers: list[Any] = [client.remote(scoring, requests(seed, sent, size)) for seed in range(max(CLIENTS))]
    ray.get([worker.warm_up.remote() for worker in workers], timeout=_START_TIMEOUT_S)

    def turn(count: int) -> Turn:
        begin = time.time() + _HEAD_START_S
        answers = [worker.work.remote(begin, seconds) for worker in workers[:count]]
        return together(ray.get(answers, timeout=_START_TIMEOUT_S + 10 * seconds))

    return {service_name(count): lambda count=count: turn(count) for count in CLIENTS}


def _through_pil(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A PNG and back, as where images travel as files."""
    with io.BytesIO() as file:
        Image.fromarray(image).save(file, format="PNG")
        return np.asarray(Image.open(file))
