"""Counters of a reward service, and the same events as metrics."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from addiffusion.metrics import Meters
from addiffusion.scorers.base import ScorerUsage
from reward_service import metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStats:
    """Counters since the service started."""

    request_count: int = 0
    """Scoring requests received."""
    image_count: int = 0
    """Images scored."""
    prompt_count: int = 0
    """Prompts embedded."""
    batch_count: int = 0
    """Passes over the scorers."""
    held_back_count: int = 0
    """Requests that had to wait for room in the queue."""
    item_error_count: int = 0
    """Images that got an error instead of scores."""
    failed_batch_count: int = 0
    """Passes that raised; every caller with images in them got the error."""
    hung_count: int = 0
    """Passes given up at their deadline."""
    timeout_count: int = 0
    """Requests that ran past their deadline."""
    cache_hit_count: int = 0
    """Images that were not scored because their scores were known."""
    halved_count: int = 0
    """Passes that ran out of memory, after which batches are half as large."""
    scoring_s: float = 0.0
    """Seconds the scorers were busy."""
    waited_s: float = 0.0
    """Waits of the oldest request of each pass, summed."""
    up_s: float = 0.0
    """Seconds since the service started."""
    waiting_image_count: int = 0
    """Images in the queue at this moment."""
    scorer_s: Mapping[str, float] = field(default_factory=dict[str, float])
    """Seconds spent in each model."""
    scorer_error_count: Mapping[str, int] = field(default_factory=dict[str, int])
    """Images without a score, by the model that failed on them."""

    @property
    def mean_batch_images(self) -> float:
        """Images per pass; 0 before the first."""
        return self.image_count / self.batch_count if self.batch_count else 0.0

    @property
    def mean_wait_ms(self) -> float:
        """Mean wait of the oldest request of a pass; 0 before the first."""
        return 1000 * self.waited_s / self.batch_count if self.batch_count else 0.0

    @property
    def busy_images_per_s(self) -> float:
        """Images per second of scoring; 0 before the first."""
        return self.image_count / self.scoring_s if self.scoring_s else 0.0


class Tally:
    """Counts the events of one service and passes them on to its meters. Belongs to the service's event loop."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        self._stats = ServiceStats()
        self._started = time.monotonic()
        self._usage = ScorerUsage()
        self._hung: Counter[str] = Counter()

    def stats(self, *, waiting_image_count: int) -> ServiceStats:
        """The counters so far."""
        errors = Counter(self._usage.error_count) + self._hung
        return replace(
            self._stats,
            waiting_image_count=waiting_image_count,
            up_s=time.monotonic() - self._started,
            cache_hit_count=self._usage.cache_hit_count,
            halved_count=self._usage.halved_count,
            scorer_s=dict(self._usage.seconds),
            scorer_error_count=dict(errors),
        )

    def request(self) -> None:
        """Count a request."""
        self._add(request_count=1)

    def prompts(self, count: int) -> None:
        """Count prompts to be embedded."""
        self._add(prompt_count=count)

    def held_back(self) -> None:
        """Count a request that found the queue full."""
        self._add(held_back_count=1)
        self._meters.record(metrics.HELD_BACK, 1)

    def late(self) -> None:
        """Count a request that ran past its deadline."""
        self._add(timeout_count=1)
        self._meters.record(metrics.LATE, 1)

    def queue(self, image_count: int) -> None:
        """Note the length of the queue."""
        self._meters.record(metrics.QUEUE_DEPTH, image_count)

    def scored(self, image_count: int, *, seconds: float, waited_s: float, usage: ScorerUsage) -> None:
        """Count a pass that has ended, with or without scores.

        Args:
            image_count: of the pass.
            seconds: it took.
            waited_s: wait of the oldest of its requests.
            usage: of the scorers, after it.
        """
        self._add(image_count=image_count, batch_count=1, scoring_s=seconds, waited_s=waited_s)
        self._meters.record(metrics.IMAGES, image_count)
        self._meters.record(metrics.BATCH_SIZE, image_count)
        self._meters.record(metrics.WAIT, 1000 * waited_s)
        self._account(usage)

    def item_errors(self, count: int) -> None:
        """Count images that got errors instead of scores."""
        self._add(item_error_count=count)

    def failed(self) -> None:
        """Count a pass that raised."""
        self._add(failed_batch_count=1)

    def hung(self, scorer: str, image_count: int) -> None:
        """Count a pass that was given up, and its images as errors of ``scorer``."""
        self._add(hung_count=1)
        self._hung[scorer] += image_count
        self._meters.record(metrics.HUNG, 1, scorer=scorer)
        self._meters.record(metrics.ERRORS, image_count, scorer=scorer)

    def _account(self, usage: ScorerUsage) -> None:
        before, self._usage = self._usage, usage
        for scorer, seconds in usage.seconds.items():
            spent = seconds - before.seconds.get(scorer, 0.0)
            if spent > 0.0:
                self._meters.record(metrics.SCORER_TIME, 1000 * spent, scorer=scorer)
        for scorer, count in usage.error_count.items():
            failed = count - before.error_count.get(scorer, 0)
            if failed:
                self._meters.record(metrics.ERRORS, failed, scorer=scorer)
        hits = usage.cache_hit_count - before.cache_hit_count
        if hits:
            self._meters.record(metrics.CACHE_HITS, hits)
        halved = usage.halved_count - before.halved_count
        if halved:
            self._meters.record(metrics.HALVED, halved)

    def _add(self, **increments: float) -> None:
        changed = {name: getattr(self._stats, name) + increment for name, increment in increments.items()}
        self._stats = replace(self._stats, **changed)
