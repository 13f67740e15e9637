"""Every event of a service is counted once, for who asks and for who watches."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict

import pytest

from addiffusion.config import ScorersSection
from addiffusion.metrics import Metric
from addiffusion.scorers.base import ScorerUsage
from addiffusion.scorers.cache import CachedScoring
from reward_service import metrics
from reward_service.service import RewardService
from reward_service.stats import ServiceStats, Tally
from tests.reward_service.toy_scoring import ToyScoring, make_request


class Notebook:
    """Meters that keep everything."""

    def __init__(self) -> None:
        self.values: defaultdict[tuple[str, ...], list[float]] = defaultdict(list)

    def record(self, metric: Metric, value: float, **tags: str) -> None:
        assert set(tags) == set(metric.tags)
        self.values[(metric.name, *tags.values())].append(value)


def test_each_metric_is_declared_once_with_unit_and_description() -> None:
    assert max(Counter(metric.name for metric in metrics.ALL).values()) == 1
    for metric in metrics.ALL:
        assert metric.name.startswith("addiffusion_reward_")
        assert metric.unit
        assert metric.description.endswith(".")
        assert (metric.kind == "histogram") == bool(metric.boundaries)
        assert metric.boundaries == tuple(sorted(metric.boundaries))


def test_a_busy_service_reports_what_it_does() -> None:
    section = ScorersSection(batch_images=8, max_wait_ms=1.0)
    notebook = Notebook()
    scoring = CachedScoring(ToyScoring(section), capacity=100)

    async def use() -> ServiceStats:
        service = RewardService(scoring, section, notebook)
        await asyncio.gather(*(service.score(make_request(seed, 4)) for seed in range(4)))
        await service.score(make_request(0, 4))
        await service.close()
        return service.stats()

    stats = asyncio.run(use())
    assert (stats.image_count, stats.batch_count, stats.cache_hit_count) == (20, 3, 4)
    assert notebook.values[(metrics.BATCH_SIZE.name,)] == [8, 8, 4]
    assert sum(notebook.values[(metrics.IMAGES.name,)]) == 20
    assert sum(notebook.values[(metrics.CACHE_HITS.name,)]) == 4
    assert len(notebook.values[(metrics.WAIT.name,)]) == 3
    assert max(notebook.values[(metrics.QUEUE_DEPTH.name,)]) == 16
    assert notebook.values[(metrics.QUEUE_DEPTH.name,)][-1] == 0
    assert stats.mean_batch_images == pytest.approx(20 / 3)


def test_scorer_time_and_errors_are_reported_as_they_grow() -> None:
    notebook = Notebook()
    tally = Tally(notebook)
    for usage in (
        ScorerUsage(seconds={"clip": 1.0}),
        ScorerUsage(seconds={"clip": 1.5, "hps": 0.25}, error_count={"hps": 2}),
        ScorerUsage(seconds={"clip": 1.5, "hps": 0.5}, error_count={"hps": 3}),
    ):
        tally.scored(4, seconds=1.0, waited_s=0.5, usage=usage)
    assert notebook.values[(metrics.SCORER_TIME.name, "clip")] == [1000.0, 500.0]
    assert notebook.values[(metrics.SCORER_TIME.name, "hps")] == [250.0, 250.0]
    assert notebook.values[(metrics.ERRORS.name, "hps")] == [2, 1]
    stats = tally.stats(waiting_image_count=7)
    assert (stats.mean_wait_ms, stats.busy_images_per_s, stats.waiting_image_count) == (500.0, 4.0, 7)
    assert (stats.scorer_s, stats.scorer_error_count) == ({"clip": 1.5, "hps": 0.5}, {"hps": 3})


def test_nothing_has_happened_yet() -> None:
    stats = ServiceStats()
    assert (stats.mean_batch_images, stats.mean_wait_ms, stats.busy_images_per_s) == (0.0, 0.0, 0.0)
