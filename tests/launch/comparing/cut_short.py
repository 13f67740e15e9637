"""Comparisons that are cut short, and what they have drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from addiffusion.config import Config, SamplerSection
from addiffusion.records import Ticket
from addiffusion.rollouts import Collected, Rollouts, WorkerStatus
from evaluation.comparison.results import read_results
from launch.comparing.evaluate import Evaluated
from launch.runtime.components import Components
from tests.launch.runtime.toy_components import toy_components


class CutShort:
    """Rollouts of ``workers`` workers that end the process's will to live at the ``count``-th call."""

    def __init__(self, rollouts: Rollouts, count: int, workers: Sequence[int] = (1,)) -> None:
        self.rollouts, self.left, self.tickets, self.calls = rollouts, count, 0, []
        self.workers = list(workers)

    def worker_status(self) -> WorkerStatus:
        """The last number stays; the others are for a stretch of calls each."""
        now = self.workers[min(len(self.calls) // 12, len(self.workers) - 1)]
        return WorkerStatus(up_count=now, absent_count=0, lost_count=0, moved_count=0)

    def set_weights(self, weights: object, version: int) -> None:
        self.rollouts.set_weights(weights, version)

    def collect(self, tickets: Sequence[Ticket], *, sampler: SamplerSection | None = None) -> Collected:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        self.tickets += len(tickets)
        self.calls.append(len(tickets))
        return self.rollouts.collect(tickets, sampler=sampler)


def counting_components(seen: list[CutShort], count: int, workers: Sequence[int] = (1,)) -> object:
    @contextmanager
    def components(config: Config) -> Iterator[Components]:
        with toy_components(config) as toys:
            seen.append(CutShort(toys.rollouts, count, workers))
            yield Components(rollouts=seen[-1], scoring=toys.scoring, learner=toys.learner)

    return components


Drawn = dict[tuple[str, int], tuple[object, ...]]


def drawn(path: Path) -> Drawn:
    rows = read_results(path / "results.parquet")
    found = {(row.contestant, row.index): (row.nfe, row.actions, row.scores["clip"]) for row in rows}
    assert len(found) == len(rows)  # nobody has an image twice
    return found


def without(found: Drawn, names: Sequence[str]) -> Drawn:
    return {key: value for key, value in found.items() if key[0] not in names}


def timed_names(*evaluated: Evaluated) -> list[str]:
    """Who has the agent's time depends on the clock."""
    return [name for one in evaluated for name in one.result.matches.equal_time]
