"""Contestants draw the cases, chunk by chunk and in turns, so that all of them meet the same load of the machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from addiffusion.errors import ConfigError, RolloutError
from addiffusion.records import METRIC_NAMES, SCORE_NAMES, Episode, Prompt, ScoreRequest
from addiffusion.rollouts import Rollouts, workers_up
from addiffusion.scorers.base import Scoring
from evaluation.comparison.categories import category_scores
from evaluation.comparison.contestants import ENGINE, Contestant, EvalCase, tickets_of
from evaluation.comparison.films import FilmStore
from evaluation.comparison.results import ImageResult, ResultStore

PolicyState = Mapping[str, NDArray[np.float32]]
_CLIP = SCORE_NAMES.index("clip")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRunner:
    """Who draws and judges, with what, and where the results go."""

    rollouts: Mapping[str, Rollouts]
    """By ``Contestant.via``."""
    scoring: Scoring
    store: ResultStore
    policies: Sequence[PolicyState]
    seed: int
    chunk_size: int
    """Cases per worker that a contestant draws before the next one has its turn."""
    films: int = 0
    """Cases whose every decision is kept for film strips, of each agent."""
    scenes: bool = False
    """Whether prompts are captions of the embedded world, which can be checked by category."""


def draw(
    runner: ComparisonRunner,
    contestants: Sequence[Contestant],
    cases: Sequence[EvalCase],
    *,
    advance: Callable[[Contestant, int], None],
) -> dict[str, str]:
    """Draw what is not on disk yet. ``advance`` is told of every chunk that is there.

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
    tickets = tickets_of(contestant, cases, films=runner.films)
    start = time.perf_counter()
    collected = runner.rollouts[contestant.via].collect(tickets, sampler=contestant.sampler)
    seconds = (time.perf_counter() - start) / len(cases)
    if not collected.episodes:
        raise RolloutError(f"{contestant.title} drew none of {len(tickets)} images: {collected.failed[0].reason}")
    best = _best(collected.episodes, contestant.draws)
    reasons = {failed.ticket.ticket_id // contestant.draws: failed.reason for failed in collected.failed}
    judged = judge_images(
        runner.scoring,
        [(episode.image, episode.ticket.prompt) for episode in best.values()],
        scenes=runner.scenes,
    )
    final = dict(zip(best, judged, strict=True))
    results = [
        _result(contestant, case, best.get(case.index), final.get(case.index), reasons.get(case.index), seconds)
        for case in cases
    ]
    FilmStore(runner.store.path).keep(contestant.name, list(best.values()))
    runner.store.write(results, {index: episode.image for index, episode in best.items()})


def _best(episodes: Sequence[Episode], draws: int) -> dict[int, Episode]:
    """The draw of each case with the highest CLIP score, in the order of cases; it bears the passes of all draws."""
    found: dict[int, list[Episode]] = {}
    for episode in episodes:
        found.setdefault(episode.ticket.ticket_id // draws, []).append(episode)
    if draws == 1:
        return {index: group[0] for index, group in found.items()}
    return {
        index: replace(
            max(group, key=lambda episode: float(episode.scores[-1, _CLIP])),
            nfe=sum(episode.nfe for episode in group),
            network_evals=sum(episode.network_evals for episode in group),
        )
        for index, group in found.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedScores:
    """Scores by name, and embeddings, of a returned image."""

    scores: Mapping[str, float]
    clip_embedding: tuple[float, ...]
    dino_embedding: tuple[float, ...]


def judge_images(
    scoring: Scoring, pairs: Sequence[tuple[NDArray[np.uint8], Prompt]], *, scenes: bool
) -> list[NamedScores]:
    """Every score the scorers have, and the embeddings, of images with their prompts."""
    if not pairs:
        return []
    images, prompts = np.stack([image for image, _ in pairs]), tuple(prompt.text for _, prompt in pairs)
    names = tuple(name for name in scoring.names if scenes or name not in METRIC_NAMES)
    reply = scoring.score(ScoreRequest(images=images, prompts=prompts, names=names))
    return [
        NamedScores(
            scores=dict(zip(reply.names, map(float, reply.values[row]), strict=True))
            | (category_scores(image, prompt.text) if scenes else {}),
            clip_embedding=tuple(map(float, reply.clip_embedding[row])),
            dino_embedding=tuple(map(float, reply.dino_embedding[row])),
        )
        for row, (image, prompt) in enumerate(pairs)
    ]


def _result(
    contestant: Contestant,
    case: EvalCase,
    episode: Episode | None,
    judged: NamedScores | None,
    reason: str | None,
    seconds: float,
) -> ImageResult:
    place = {
        "contestant": contestant.name,
        "index": case.index,
        "prompt_id": case.prompt.prompt_id,
        "prompt": case.prompt.text,
        "tier": case.prompt.tier,
        "repeat": case.repeat,
        "seed": case.seed,
    }
    if episode is None or judged is None:
        return ImageResult(**place, error=reason or "The image was lost.")
    return ImageResult(
        **place,
        nfe=episode.nfe,
        network_evals=episode.network_evals,
        seconds=seconds,
        latency_s=episode.seconds,
        actions=tuple(map(int, episode.actions)),
        steps=tuple(map(int, episode.steps)),
        scores=judged.scores,
        clip_embedding=judged.clip_embedding,
        dino_embedding=judged.dino_embedding,
    )
