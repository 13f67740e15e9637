"""Contestants draw the cases, chunk by chunk and in turns, so that all of them meet the same load of the machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from addiffusion.errors import ConfigError, RolloutError
from addiffusion.records import Episode, Reference
from addiffusion.rollouts import Rollouts, workers_up
from addiffusion.scorers.base import Scoring
from evaluation.comparison.contestants import ENGINE, Contestant, EvalCase, tickets_of
from evaluation.comparison.films import FilmStore
from evaluation.comparison.metric_table import MetricTable, metric_table
from evaluation.comparison.results import ImageResult, ResultStore
from evaluation.comparison.scores import Judge, NamedScores, every_score
from evaluation.comparison.tries import CLIP, draw_tries

PolicyState = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRunner:
    """Who draws and judges, with what, and where the results go."""

    rollouts: Mapping[str, Rollouts]
    """By ``Contestant.via``."""
    scoring: Scoring
    store: ResultStore
    policies: Mapping[int, PolicyState]
    """By ``Contestant.policy``."""
    seed: int
    chunk_size: int
    """Cases per worker that a contestant draws before the next one has its turn."""
    films: int = 0
    """Cases whose every decision is kept for film strips, of each agent."""
    scenes: bool = False
    """Whether prompts are captions of the embedded world, which can be checked by category."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What a contestant made of some cases."""

    contestant: Contestant
    results: tuple[ImageResult, ...]
    """One per case, in their order."""
    episodes: Mapping[int, Episode]
    """By index of the case; those that could not be drawn are missing."""

    def table(self, cases: Sequence[EvalCase], full: MetricTable | None = None) -> MetricTable:
        """The results as columns; ``full`` gives the images that likeness is measured to."""
        return metric_table(self.contestant, self.results, cases, full)


def draw_cases(
    rollouts: Rollouts,
    contestant: Contestant,
    cases: Sequence[EvalCase],
    *,
    judge: Judge,
    films: int = 0,
    references: Mapping[int, Reference | None] | None = None,
) -> Drawn:
    """Draw a contestant's images of all ``cases`` at once and judge them; nothing is kept on disk.

    Args:
        rollouts: who draws, with the weights it has.
        contestant: how.
        cases: prompts and seeds.
        judge: what gives the scores.
        films: an agent's episodes of the first so many cases keep every decision's image.
        references: by index of the case, for rewards relative to the full-length image.

    Raises:
        RolloutError: no worker could finish the images in time.
    """
    start, price = time.perf_counter(), math.nan
    if contestant.abandon_at is None:
        tickets = tickets_of(contestant, cases, films=films, references=references)
        collected = rollouts.collect(tickets, sampler=contestant.sampler)
        price = collected.full_queue.seconds_per_eval / workers_up(rollouts)
        best = _best(collected.episodes, contestant.draws)
        reasons = {failed.ticket.ticket_id // contestant.draws: failed.reason for failed in collected.failed}
    else:
        best, reasons = draw_tries(rollouts, contestant, cases)
    seconds = (time.perf_counter() - start) / len(cases)
    scores = dict(zip(best, judge(list(best.values())), strict=True))
    results = tuple(
        _result(
            contestant, case, best.get(case.index), scores.get(case.index), reasons.get(case.index), (seconds, price)
        )
        for case in cases
    )
    return Drawn(contestant=contestant, results=results, episodes=best)


def draw(
    runner: ComparisonRunner,
    contestants: Sequence[Contestant],
    cases: Sequence[EvalCase],
    *,
    advance: Callable[[Contestant, int], None],
) -> dict[str, str]:
    """Draw what is not on disk yet.

    Args:
        runner: who draws and judges, and the folder of the results.
        contestants: in the order of their turns.
        cases: prompts and seeds.
        advance: told of each chunk that is there: whose, and of how many cases.

    Returns:
        Contestants that the model can't draw (a solver that does not fit it), by name, with the reason.

    Raises:
        RolloutError: no worker could finish a chunk in time, or no image of a chunk could be drawn.
        ArchiveError: the folder holds images of a contestant of the same name that were drawn otherwise.
    """
    drawn = {contestant.name: _claimed(runner.store, contestant) for contestant in contestants}
    refused: dict[str, str] = {}
    warmed: dict[Any, int] = {}
    start = 0
    while start < len(cases):
        part = cases[start : start + runner.chunk_size * workers_up(runner.rollouts[ENGINE])]
        for contestant in contestants:
            taken = [case for case in part if contestant.takes(case)]
            missing = [case for case in taken if case.index not in drawn[contestant.name]]
            if missing and contestant.name not in refused:
                try:
                    _warm_up(runner, contestant, missing, warmed)
                except ConfigError as error:
                    refused[contestant.name] = error.message
                else:
                    _draw_chunk(runner, contestant, missing)
            advance(contestant, len(taken))
        start += len(part)
    return refused


def _claimed(store: ResultStore, contestant: Contestant) -> set[int]:
    """Cases that a contestant has drawn already."""
    store.claim(contestant.name, contestant.as_json())
    return store.drawn(contestant.name)


def _warm_up(
    runner: ComparisonRunner, contestant: Contestant, cases: Sequence[EvalCase], warmed: dict[Any, int]
) -> None:
    """Models, solver tables and caches are made in the first call of each sampler: nobody's images pay for them.

    Every worker that is up gets an image, and again when more have come.

    Raises:
        ConfigError: the model can't be sampled so.
    """
    key = (contestant.via, contestant.sampler, contestant.policy is not None)
    count = workers_up(runner.rollouts[ENGINE])
    if warmed.get(key, 0) < count:
        _hand_policy(runner, contestant)
        tickets = tickets_of(replace(contestant, draws=1), cases[:count])
        runner.rollouts[contestant.via].collect(tickets, sampler=contestant.sampler)
        warmed[key] = count


def _hand_policy(runner: ComparisonRunner, contestant: Contestant) -> None:
    if contestant.policy is not None:
        runner.rollouts[contestant.via].set_weights(runner.policies[contestant.policy], contestant.policy)


def _draw_chunk(runner: ComparisonRunner, contestant: Contestant, cases: Sequence[EvalCase]) -> None:
    _hand_policy(runner, contestant)
    judge = every_score(runner.scoring, scenes=runner.scenes)
    drawn = draw_cases(runner.rollouts[contestant.via], contestant, cases, judge=judge, films=runner.films)
    if not drawn.episodes:
        count = len(cases) * contestant.draws
        raise RolloutError(f"{contestant.title} drew none of {count} images: {drawn.results[0].error}")
    FilmStore(runner.store.path).keep(contestant.name, list(drawn.episodes.values()))
    runner.store.write(drawn.results, {index: episode.image for index, episode in drawn.episodes.items()})


def _best(episodes: Sequence[Episode], draws: int) -> dict[int, Episode]:
    """The draw of each case with the highest CLIP score, in the order of cases; it bears the passes of all draws."""
    found: dict[int, list[Episode]] = {}
    for episode in episodes:
        found.setdefault(episode.ticket.ticket_id // draws, []).append(episode)
    if draws == 1:
        return {index: group[0] for index, group in found.items()}
    return {
        index: replace(
            max(group, key=lambda episode: float(episode.scores[-1, CLIP])),
            nfe=sum(episode.nfe for episode in group),
            network_evals=sum(episode.network_evals for episode in group),
            cost=sum(episode.cost for episode in group),
        )
        for index, group in found.items()
    }


def _result(
    contestant: Contestant,
    case: EvalCase,
    episode: Episode | None,
    judged: NamedScores | None,
    reason: str | None,
    seconds: tuple[float, float],
) -> ImageResult:
    """``seconds``: of an image in the set, and of a row of the network batch with a full queue."""
    if episode is None or judged is None:
        return ImageResult.of(contestant.name, case, error=reason or "The image was lost.")
    return ImageResult.of(
        contestant.name,
        case,
        nfe=episode.nfe,
        network_evals=episode.network_evals,
        seconds=seconds[0],
        seconds_full_queue=episode.network_evals * seconds[1],
        latency_s=episode.seconds,
        actions=tuple(map(int, episode.actions)),
        steps=tuple(map(int, episode.steps)),
        scores=judged.scores,
        clip_embedding=judged.clip_embedding,
        dino_embedding=judged.dino_embedding,
    )
