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
from evaluation.comparison.contestants import ENGINE, Contestant, EvalCase, fixed_stop, full_run
from evaluation.comparison.draw import ComparisonRunner, draw
from evaluation.comparison.matching import equal_nfe, equal_time, mean_stop, random_stop, refined_stop
from evaluation.comparison.metric_table import MetricTable, metric_table
from evaluation.comparison.oracle import BY_REWARD, oracle, oracle_share, oracle_title
from evaluation.comparison.results import ImageResult
from evaluation.comparison.summary import ComparisonResult, Matches

FULL = "full"
Stage = Callable[[str, Sequence[Contestant], int], Callable[[Contestant, int], None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonPlan:
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
    """Trajectory bank of the cases: the oracle then has every stop instead of ``stops``."""
    skipped: Mapping[str, str] = field(default_factory=dict[str, str])
    """Contestants that can't take part, each with the reason."""
    margin: float = 0.01
    """Largest loss that does not matter, as a share of the full run's mean."""


def compare_all(
    plan: ComparisonPlan,
    runner: ComparisonRunner,
    cases: Sequence[EvalCase],
    *,
    reward: RewardSection,
    stage: Stage,
) -> ComparisonResult:
    """Draw everything a plan asks for and put it side by side.

    Args:
        plan: who takes part.
        runner: who draws and judges, and where results lie; what lies there already is not drawn again.
        cases: prompts and seeds.
        reward: what the oracle maximises.
        stage: told of each stage's title, contestants and number of images; what it returns, of each chunk.

    Raises:
        RolloutError: images could not be drawn.
        ArchiveError: results on disk can't be read.
    """
    stages = _Stages(plan, runner, cases, stage)
    stops = tuple(fixed_stop(step, plan.agent.sampler) for step in plan.stops)
    whole = full_run(plan.agent.sampler)
    first = stages.run("agent and independent baselines", [plan.agent, whole, *plan.others, *stops])
    tables = _Tables(runner, cases)
    agent = tables[plan.agent]
    plan = replace(plan, solvers=stages.fitting(plan.solvers))
    second = stages.run("baselines at the agent's NFE", _measured_by_nfe(plan, runner, agent))
    timed = _measured_by_time(plan, tables, [*first, *second]) if plan.timed else []
    third = stages.run("baselines in the agent's time", timed)
    others = {one.name: tables[one] for one in [*first, *second, *third] if one is not plan.agent}
    full = others[FULL]
    choices = [full, *(others[stop.name] for stop in stops)]
    if plan.bank is not None:
        choices = bank_stops(plan.bank, cases, full)
    plan = _payable(plan, reward)
    oracles = _oracles(plan, choices, full, reward)
    best = oracles.get(f"oracle-{BY_REWARD}")
    return ComparisonResult(
        agent=agent,
        others=others | oracles,
        matches=Matches(
            equal_nfe=tuple(one.name for one in second if one.kind == "static"),
            equal_time=tuple(one.name for one in third),
        ),
        skipped=dict(plan.skipped) | stages.refused,
        oracle_share=None if best is None else oracle_share(agent, best, full=full, reward=reward),
        margin=plan.margin,
    )


class _Stages:
    """The stages one after the other; who can't be drawn is told and left out from then on."""

    def __init__(self, plan: ComparisonPlan, runner: ComparisonRunner, cases: Sequence[EvalCase], stage: Stage) -> None:
        self._agent, self._runner, self._cases, self._stage = plan.agent, runner, cases, stage
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
        count = sum(one.takes(case) for one in contestants for case in self._cases)
        refused = draw(self._runner, contestants, self._cases, advance=self._stage(title, contestants, count))
        for name in (self._agent.name, FULL):
            if name in refused:
                raise ConfigError(refused[name])
        self._refused_solvers |= {name.rpartition("-")[0] for name in refused}
        self.refused |= {one.title: refused[one.name] for one in contestants if one.name in refused}
        return [one for one in contestants if one.name not in refused]


class _Tables:
    """Tables by contestant, read from disk once; likeness is to the full run's images."""

    def __init__(self, runner: ComparisonRunner, cases: Sequence[EvalCase]) -> None:
        self._store, self._cases = runner.store, cases
        self._tables: dict[str, MetricTable] = {}

    def __getitem__(self, contestant: Contestant) -> MetricTable:
        if contestant.name not in self._tables:
            full = None if contestant.name == FULL else self[full_run(contestant.sampler)]
            results = self._store.read([contestant.name])[contestant.name]
            _check_pairs(self._store.path, contestant, results, self._cases)
            self._tables[contestant.name] = metric_table(contestant, results, self._cases, full)
        return self._tables[contestant.name]


def _check_pairs(path: Path, contestant: Contestant, results: Sequence[ImageResult], cases: Sequence[EvalCase]) -> None:
    """Refuse a contestant that has not the pairs that all others have; one that failed is there, with its reason.

    Raises:
        ArchiveError: a pair is missing.
    """
    wanted = {case.index for case in cases if contestant.takes(case)}
    missing = sorted(wanted - {result.index for result in results})
    if missing:
        raise ArchiveError(
            f"{path} lacks {len(missing)} of {len(wanted)} images of {contestant.title} (the first is of pair "
            f"{missing[0]}), so the comparison is not finished: run the same command again to draw them.",
            path=str(path),
            missing=missing,
        )


def _measured_by_nfe(plan: ComparisonPlan, runner: ComparisonRunner, agent: MetricTable) -> list[Contestant]:
    sampler, mean = plan.agent.sampler, agent.mean("nfe")
    matched = equal_nfe(plan.solvers, sampler, mean)
    if not plan.controls:
        return matched
    # An image the agent lost is given its mean, so that every case has a stop.
    nfe = np.where(agent.drawn, agent.nfe, round(mean)).astype(int).tolist()
    controls = [random_stop(sampler, nfe, seed=runner.seed), mean_stop(sampler, mean, len(nfe), seed=runner.seed)]
    if plan.refine_passes is not None:
        passes = plan.refine_passes
        controls.append(refined_stop(sampler, mean, len(nfe), refine_passes=passes, seed=runner.seed))
    return [*controls, *matched]


def _measured_by_time(plan: ComparisonPlan, tables: _Tables, drawn: Sequence[Contestant]) -> list[Contestant]:
    """Static samplers timed so far, the full run among them, say what a pass costs on this machine."""
    timed = [tables[one] for one in drawn if one.via == ENGINE and (one.kind == "static" or one.name == FULL)]
    known = {round(one.mean("nfe")): one.mean("seconds") for one in timed}
    agent = tables[plan.agent]
    return equal_time(plan.solvers, plan.agent.sampler, agent.mean("seconds"), known)


def _payable(plan: ComparisonPlan, reward: RewardSection) -> ComparisonPlan:
    """Without the oracle by reward, and with the reason, where images don't tell what is paid on the way to them."""
    if BY_REWARD not in plan.oracles or pays_for_image(reward):
        return plan
    reason = "reward.preset=phase1 pays for successive predictions, which no returned image tells of"
    return replace(
        plan,
        oracles=tuple(by for by in plan.oracles if by != BY_REWARD),
        skipped=dict(plan.skipped) | {oracle_title(BY_REWARD): reason},
    )


def _oracles(
    plan: ComparisonPlan, choices: Sequence[MetricTable], full: MetricTable, reward: RewardSection
) -> dict[str, MetricTable]:
    if len(choices) < 2:
        return {}
    found = [oracle(choices, by, full=full, reward=reward) for by in plan.oracles]
    return {one.contestant.name: one for one in found}
