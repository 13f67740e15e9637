"""The order of a comparison: first who depends on nobody, then who is measured by what the agent spent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from addiffusion.bank.archive import Bank
from addiffusion.config import RewardSection
from addiffusion.errors import ArchiveError, ConfigError
from addiffusion.reward import pays_for_image
from evaluation.comparison.bank_stops import bank_stops
from evaluation.comparison.columns import Columns, columns_of
from evaluation.comparison.contestants import ENGINE, Contestant, Item, fixed_stop, full_run
from evaluation.comparison.draw import Studio, draw
from evaluation.comparison.matching import equal_nfe, equal_time, mean_stop, random_stop, refined_stop
from evaluation.comparison.oracle import BY_REWARD, oracle, oracle_share, oracle_title
from evaluation.comparison.results import ImageResult
from evaluation.comparison.summary import Matches, Standings

FULL = "full"
Stage = Callable[[str, Sequence[Contestant], int], Callable[[Contestant, int], None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What a comparison consists of."""

    agent: Contestant
    others: tuple[Contestant, ...] = ()
    """Independent of what the agent spends: prices, static samplers, search, baselines of the literature."""
    solvers: tuple[str, ...] = ()
    """Static solvers that also run with the agent's NFE, and in the agent's time."""
    timed: bool = True
    """Whether they run in the agent's time, too."""
    controls: bool = True
    """Random stop and fixed stop with the agent's own NFE."""
    refine_passes: int | None = None
    """Passes of a refine; also fixed stop after one refine, with the agent's own NFE. None: without it."""
    stops: tuple[int, ...] = ()
    """Schedule indices at which every image is stopped, for the oracle and the curve of fixed stopping."""
    oracles: tuple[str, ...] = (BY_REWARD,)
    """Scores by which the best of these stops is taken."""
    bank: Bank | None = None
    """Trajectory bank of the items: the oracle then has every stop instead of ``stops``."""
    skipped: Mapping[str, str] = field(default_factory=dict[str, str])
    """Contestants that can't take part, each with the reason."""
    margin: float = 0.01
    """Largest loss that does not matter, as a share of the full run's mean."""


def compare_all(
    program: Program,
    studio: Studio,
    items: Sequence[Item],
    *,
    reward: RewardSection,
    stage: Stage,
) -> Standings:
    """Draw everything a program asks for and put it side by side.

    Args:
        program: who takes part.
        studio: who draws and judges, and where results lie; what lies there already is not drawn again.
        items: prompts and seeds.
        reward: what the oracle maximises.
        stage: told of each stage's title, contestants and number of images; what it returns, of each chunk.

    Raises:
        RolloutError: images could not be drawn.
        ArchiveError: results on disk can't be read.
    """
    course = _Course(program, studio, items, stage)
    stops = tuple(fixed_stop(step, program.agent.sampler) for step in program.stops)
    whole = full_run(program.agent.sampler)
    first = course.run("agent and independent baselines", [program.agent, whole, *program.others, *stops])
    table = _Table(studio, items)
    agent = table[program.agent]
    program = replace(program, solvers=course.fitting(program.solvers))
    second = course.run("baselines at the agent's NFE", _measured_by_nfe(program, studio, agent))
    timed = _measured_by_time(program, table, [*first, *second]) if program.timed else []
    third = course.run("baselines in the agent's time", timed)
    others = {one.name: table[one] for one in [*first, *second, *third] if one is not program.agent}
    full = others[FULL]
    choices = [full, *(others[stop.name] for stop in stops)]
    if program.bank is not None:
        choices = bank_stops(program.bank, items, full)
    program = _payable(program, reward)
    oracles = _oracles(program, choices, full, reward)
    best = oracles.get(f"oracle-{BY_REWARD}")
    return Standings(
        agent=agent,
        others=others | oracles,
        matches=Matches(
            equal_nfe=tuple(one.name for one in second if one.kind == "static"),
            equal_time=tuple(one.name for one in third),
        ),
        skipped=dict(program.skipped) | course.refused,
        oracle_share=None if best is None else oracle_share(agent, best, full=full, reward=reward),
        margin=program.margin,
    )


class _Course:
    """The stages one after the other; who can't be drawn is told and left out from then on."""

    def __init__(self, program: Program, studio: Studio, items: Sequence[Item], stage: Stage) -> None:
        self._agent, self._studio, self._items, self._stage = program.agent, studio, items, stage
        self.refused: dict[str, str] = {}
        """Reason by title."""
        self._refused_solvers: set[str] = set()

    def fitting(self, solvers: Sequence[str]) -> tuple[str, ...]:
        """Solvers that were not refused so far."""
        return tuple(solver for solver in solvers if solver not in self._refused_solvers)

    def run(self, title: str, contestants: Sequence[Contestant]) -> list[Contestant]:
        """Draw a stage; those who could be drawn.

        Raises:
            ConfigError: the agent itself, or its whole schedule, can't be drawn.
        """
        count = sum(one.takes(item) for one in contestants for item in self._items)
        refused = draw(self._studio, contestants, self._items, advance=self._stage(title, contestants, count))
        for name in (self._agent.name, FULL):
            if name in refused:
                raise ConfigError(refused[name])
        self._refused_solvers |= {name.rpartition("-")[0] for name in refused}
        self.refused |= {one.title: refused[one.name] for one in contestants if one.name in refused}
        return [one for one in contestants if one.name not in refused]


class _Table:
    """Columns by contestant, read from disk once; likeness is to the full run's images."""

    def __init__(self, studio: Studio, items: Sequence[Item]) -> None:
        self._store, self._items = studio.store, items
        self._columns: dict[str, Columns] = {}

    def __getitem__(self, contestant: Contestant) -> Columns:
        if contestant.name not in self._columns:
            full = None if contestant.name == FULL else self[full_run(contestant.sampler)]
            results = self._store.read([contestant.name])[contestant.name]
            _check_pairs(self._store.path, contestant, results, self._items)
            self._columns[contestant.name] = columns_of(contestant, results, self._items, full)
        return self._columns[contestant.name]


def _check_pairs(path: Path, contestant: Contestant, results: Sequence[ImageResult], items: Sequence[Item]) -> None:
    """Refuse a contestant that has not the pairs that all others have; one that failed is there, with its reason.

    Raises:
        ArchiveError: a pair is missing.
    """
    wanted = {item.index for item in items if contestant.takes(item)}
    missing = sorted(wanted - {result.index for result in results})
    if missing:
        raise ArchiveError(
            f"{path} lacks {len(missing)} of {len(wanted)} images of {contestant.title} (the first is of pair "
            f"{missing[0]}), so the comparison is not finished: run the same command again to draw them.",
            path=str(path),
            missing=missing,
        )


def _measured_by_nfe(program: Program, studio: Studio, agent: Columns) -> list[Contestant]:
    sampler, mean = program.agent.sampler, agent.mean("nfe")
    matched = equal_nfe(program.solvers, sampler, mean)
    if not program.controls:
        return matched
    # An image the agent lost is given its mean, so that every item has a stop.
    nfe = np.where(agent.drawn, agent.nfe, round(mean)).astype(int).tolist()
    controls = [random_stop(sampler, nfe, seed=studio.seed), mean_stop(sampler, mean, len(nfe), seed=studio.seed)]
    if program.refine_passes is not None:
        passes = program.refine_passes
        controls.append(refined_stop(sampler, mean, len(nfe), refine_passes=passes, seed=studio.seed))
    return [*controls, *matched]


def _measured_by_time(program: Program, table: _Table, drawn: Sequence[Contestant]) -> list[Contestant]:
    """Static samplers timed so far, the full run among them, say what a pass costs on this machine."""
    timed = [table[one] for one in drawn if one.via == ENGINE and (one.kind == "static" or one.name == FULL)]
    known = {round(one.mean("nfe")): one.mean("seconds") for one in timed}
    agent = table[program.agent]
    return equal_time(program.solvers, program.agent.sampler, agent.mean("seconds"), known)


def _payable(program: Program, reward: RewardSection) -> Program:
    """Without the oracle by reward, and with the reason, where images don't tell what is paid on the way to them."""
    if BY_REWARD not in program.oracles or pays_for_image(reward):
        return program
    reason = "reward.preset=phase1 pays for successive predictions, which no returned image tells of"
    return replace(
        program,
        oracles=tuple(by for by in program.oracles if by != BY_REWARD),
        skipped=dict(program.skipped) | {oracle_title(BY_REWARD): reason},
    )


def _oracles(program: Program, choices: Sequence[Columns], full: Columns, reward: RewardSection) -> dict[str, Columns]:
    if len(choices) < 2:
        return {}
    found = [oracle(choices, by, full=full, reward=reward) for by in program.oracles]
    return {one.contestant.name: one for one in found}
