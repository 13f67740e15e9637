"""`addiffusion bench reward`: what the service costs over the scorers themselves, and saves over a plain loop."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal
from uuid import uuid4

import numpy as np
import ray
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from addiffusion.config import Config, ScorersSection
from addiffusion.embedded.scenes import IMAGE_SIZE
from addiffusion.records import SCORE_NAMES, ScoreRequest
from addiffusion.scorers.base import Scoring
from addiffusion.scorers.families import load_suite
from addiffusion.threads import torch_threads
from launch.bench_client import BenchClient, call_for, requests
from launch.cluster import NAMESPACE, ray_running
from launch.config_files import load_config
from reward_service.actor import Start, get_or_create, stop
from reward_service.client import RemoteScoring

BATCHES: Final = (4, 8, 16, 32)
CLIENTS: Final = (1, 2, 4)
_START_TIMEOUT_S: Final = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOrder:
    """What to measure."""

    scorers: Literal["embedded", "pretrained", "random"]
    device: str
    size: int | None
    seconds: float
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Throughput, and latency of one call."""

    images_per_s: float
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """All measurements."""

    order: BenchOrder
    image_size: int
    best_batch: int
    direct: Measured
    service: Mapping[int, Measured]
    """By number of clients."""
    one_by_one: Measured

    def to_json(self) -> dict[str, Any]:
        """For the last line."""
        over = {clients: measured.images_per_s for clients, measured in self.service.items()}
        return {
            "scorers": self.order.scorers,
            "device": self.order.device,
            "size": self.image_size,
            "direct_batch": self.best_batch,
            "direct": asdict(self.direct),
            "service": {str(clients): asdict(measured) for clients, measured in self.service.items()},
            "one_by_one": asdict(self.one_by_one),
            "service_over_direct": {str(c): rate / self.direct.images_per_s for c, rate in over.items()},
            "service_over_one_by_one": {str(c): rate / self.one_by_one.images_per_s for c, rate in over.items()},
        }


def run(order: BenchOrder, console: Console) -> BenchResult:
    """Measure, one thing after the other; nothing is cached and every process has one torch thread.

    Raises:
        UsageError: the scorers can't be loaded, or Ray can't be started.
    """
    config = _config(order)
    size = order.size or (IMAGE_SIZE if order.scorers == "embedded" else 512)
    section = config.scorers
    with torch_threads(1):
        with console.status("scorers called directly"):
            best, direct = _best_direct(section, order, size)
        with console.status("one image at a time, each scorer for itself"):
            one_by_one = _one_by_one(section, order, size)
    section = section.model_copy(update={"batch_images": best})
    service: dict[int, Measured] = {}
    with ray_running(config):
        scoring = get_or_create(
            section,
            namespace=NAMESPACE,
            name=f"bench-{uuid4().hex[:8]}",
            load=_loader(order),
            start=Start(timeout_s=config.cluster.start_timeout_s),
        )
        for clients in CLIENTS:
            with console.status(f"through the service, {clients} clients"):
                service[clients] = _served(scoring, clients, best, size, order.seconds)
        stop(scoring)
    return BenchResult(
        order=order, image_size=size, best_batch=best, direct=direct, service=service, one_by_one=one_by_one
    )


def table(result: BenchResult) -> Table:
    """What was measured, as people read it."""
    shown = Table(title=f"{result.order.scorers} scorers on {result.order.device}, {result.image_size} px")
    for name in ("", "images/s", "p50 ms", "p95 ms", "/ direct", "/ one by one"):
        shown.add_column(name, justify="left" if not name else "right")
    rows = {
        f"direct, batch {result.best_batch}": result.direct,
        **{f"service, {clients} client{'s'[: clients > 1]}": measured for clients, measured in result.service.items()},
        "one image at a time": result.one_by_one,
    }
    for title, measured in rows.items():
        ratios = (measured.images_per_s / other.images_per_s for other in (result.direct, result.one_by_one))
        numbers = (measured.images_per_s, measured.p50_ms, measured.p95_ms)
        shown.add_row(title, *(f"{number:.1f}" for number in numbers), *(f"{ratio:.2f}" for ratio in ratios))
    return shown


def load_random(section: ScorersSection) -> Scoring:
    """The full-size suite with random weights, for the actor's process."""
    from addiffusion.scorers.random_weights import random_suite  # noqa: PLC0415 - its libraries take seconds to import

    return random_suite(section)


def _config(order: BenchOrder) -> Config:
    kind = "embedded" if order.scorers == "embedded" else "pretrained"
    fixed = (f"scorers.kind={kind}", f"scorers.device={order.device}", "scorers.cache_images=0")
    return load_config(overrides=(*fixed, *order.overrides))


def _loader(order: BenchOrder) -> Callable[[ScorersSection], Scoring]:
    return load_random if order.scorers == "random" else load_suite


def _best_direct(section: ScorersSection, order: BenchOrder, size: int) -> tuple[int, Measured]:
    """The best of some batch sizes, in this process; of equals (within 3 %) the largest."""
    results: dict[int, Measured] = {}
    for batch in BATCHES:
        suite = _loader(order)(section.model_copy(update={"batch_images": batch}))
        results[batch] = _repeated(lambda request, suite=suite: suite.score(request), batch, size, order.seconds / 2)
    best = best_batch({batch: measured.images_per_s for batch, measured in results.items()})
    return best, results[best]


def best_batch(images_per_s: Mapping[int, float]) -> int:
    """The largest batch size within 3 % of the fastest."""
    fastest = max(images_per_s.values())
    return max(batch for batch, rate in images_per_s.items() if rate >= 0.97 * fastest)


def _one_by_one(section: ScorersSection, order: BenchOrder, size: int) -> Measured:
    """The predecessor's style: a PIL image per call, and each scorer runs all the models it needs by itself."""
    suite = _loader(order)(section.model_copy(update={"batch_images": 1}))
    shares = [((name,), ()) for name in SCORE_NAMES] + [((), (name,)) for name in ("clip", "dino")]

    def score(request: ScoreRequest) -> None:
        for names, embeddings in shares:
            images = _through_pil(request.images[0])[None]
            suite.score(ScoreRequest(images=images, prompts=request.prompts, names=names, embeddings=embeddings))

    return _repeated(score, 1, size, order.seconds)


def _served(scoring: RemoteScoring, clients: int, batch: int, size: int, seconds: float) -> Measured:
    """Client processes that each send one request after another, as rollout workers do."""
    client: Any = ray.remote(BenchClient).options(num_cpus=0.01)
    workers: list[Any] = [client.remote(scoring, requests(seed, batch, size)) for seed in range(clients)]
    ray.get([worker.warm_up.remote() for worker in workers], timeout=_START_TIMEOUT_S)
    begin = time.time() + 0.5
    answers = [worker.work.remote(begin, seconds) for worker in workers]
    latencies = ray.get(answers, timeout=60 + 10 * seconds)
    for worker in workers:
        ray.kill(worker)
    wall_s = max(sum(each) for each in latencies)
    return _measured([latency for each in latencies for latency in each], batch, wall_s)


def _repeated(score: Callable[[ScoreRequest], Any], batch: int, size: int, seconds: float) -> Measured:
    work = requests(0, batch, size)
    score(work[0])
    latencies = call_for(score, work, seconds)
    return _measured(latencies, batch, sum(latencies))


def _measured(latencies: Sequence[float], batch: int, seconds: float) -> Measured:
    p50, p95 = np.percentile(latencies, [50, 95]) * 1000
    return Measured(images_per_s=len(latencies) * batch / seconds, p50_ms=float(p50), p95_ms=float(p95))


def _through_pil(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A PNG and back, as where images travel as files."""
    with io.BytesIO() as file:
        Image.fromarray(image).save(file, format="PNG")
        return np.asarray(Image.open(file))
