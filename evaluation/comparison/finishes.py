"""What the passes after a stop are worth: images stopped at the same step, finished in different ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from addiffusion.actions import Action
from addiffusion.config import Config
from addiffusion.records import METRIC_NAMES, SCORE_NAMES, Prompt
from addiffusion.rollouts import Rollouts
from addiffusion.scorers.base import Scoring
from evaluation.comparison.holdout import Arm, ArmResult, arm_tickets, run_arm

FinishSolver: TypeAlias = Literal["ddim", "dpm++2m"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """One way to end an image."""

    solver: FinishSolver
    passes: int
    stop_at: int
    """Schedule index of the step after which every image is stopped."""


def grid(
    solvers: Sequence[FinishSolver], passes: Sequence[int], stops: Sequence[int], *, num_steps: int
) -> list[Finish]:
    """Every combination once: without passes the solver does not matter, and no more passes than steps were left."""
    finishes: dict[tuple[str, int, int], Finish] = {}
    for stop_at in stops:
        for count in passes:
            shortened = min(count, num_steps - 1 - stop_at)
            for solver in solvers if shortened else solvers[:1]:
                finish = Finish(solver=solver, passes=shortened, stop_at=stop_at)
                finishes[solver, shortened, stop_at] = finish
    return list(finishes.values())


def compare_finishes(
    rollouts: Rollouts,
    scoring: Scoring,
    *,
    prompts: Sequence[Prompt],
    config: Config,
    finishes: Sequence[Finish],
    advance: Callable[[], None],
) -> list[dict[str, Any]]:
    """Mean NFE and scores of every finish, and of the whole schedule, on the same prompts and seeds.

    Raises:
        RolloutError: no worker could finish the images in time.
    """
    full = Arm(name="full", title="full", forced=Action.CONTINUE)
    rows = [{"finish": None, **_means(run_arm(rollouts, scoring, full, arm_tickets(full, prompts, config)))}]
    advance()
    for finish in finishes:
        arm = _arm(finish, config)
        result = run_arm(rollouts, scoring, arm, arm_tickets(arm, prompts, config))
        place = {"finish": finish.solver, "passes": finish.passes, "stop_at": finish.stop_at}
        rows.append({**place, **_means(result)})
        advance()
    return rows


def _arm(finish: Finish, config: Config) -> Arm:
    """The first decision of an episode comes right after its warm-up."""
    sampler = config.sampler.model_copy(
        update={"warmup_steps": finish.stop_at, "finish_steps": finish.passes, "finish_solver": finish.solver}
    )
    title = f"stop at {finish.stop_at}, {finish.passes} passes of {finish.solver}"
    return Arm(name="finish", title=title, forced=Action.STOP, sampler=sampler)


def _means(result: ArmResult) -> dict[str, Any]:
    scores = {name: result.mean_score(name) for name in (*METRIC_NAMES, *SCORE_NAMES)}
    return {"nfe": result.mean_nfe(), **scores, "images": len(result.episodes), "dropped": result.dropped_count}
