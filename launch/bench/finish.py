"""`addiffusion bench finish`: which solver, and how many passes, should end a stopped image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import NDArray

from addiffusion.config import Config
from addiffusion.config.sampling import FinishSolverName
from addiffusion.errors import ConfigError
from addiffusion.records import METRIC_NAMES, SCORE_NAMES, Prompt
from evaluation.comparison.contestants import Contestant, fixed_stop, full_run, make_cases
from evaluation.comparison.draw import draw_cases
from evaluation.comparison.scores import paid_scores
from evaluation.tables import Table
from launch.bench.orders import FinishOrder
from launch.runtime.components import Components

SOLVERS: Final[tuple[FinishSolverName, ...]] = get_args(FinishSolverName)
_GRID: Final = 33
"""Points of NFE at which finishes are compared."""
_SHOWN: Final = (("NFE", "nfe", ".1f"), ("scene", "scene_soft", ".3f"), ("strict", "scene_strict", ".3f"))
_SCORES: Final = (("CLIP", "clip", ".3f"), ("aesthetic", "aesthetic", ".2f"), ("preference", "image_reward", "+.3f"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """One way to end an image."""

    solver: FinishSolverName
    passes: int
    stop_at: int
    """Schedule index of the step after which every image is stopped."""


def check_stops(order: FinishOrder, config: Config) -> None:
    """Make sure that images can be stopped there.

    Raises:
        ConfigError: one is no step of the schedule.
    """
    last = config.sampler.num_steps - 1
    for stop_at in order.stops:
        if not 1 <= stop_at <= last:
            raise ConfigError(
                f"--stop-at {stop_at} is not a step of this schedule: choose 1 to {last}.", stop_at=stop_at
            )


def combinations(order: FinishOrder, config: Config) -> int:
    """Ways to end an image, the full run among them."""
    return 1 + len(grid(order, config))


def bench_finish(
    order: FinishOrder,
    prompts: Sequence[Prompt],
    config: Config,
    components: Components,
    advance: Callable[[], None],
) -> list[dict[str, Any]]:
    """One row per way to end an image; the first row is the whole schedule.

    Args:
        order: passes and stops to combine.
        prompts: held-out ones, one image each.
        config: of the sampler whose images are stopped.
        components: who rolls out and scores.
        advance: called for each way that is done.

    Raises:
        RolloutError: no worker could finish the images in time.
    """
    cases, judge = make_cases(prompts, repeats=1, seed=config.run.seed), paid_scores(components.scoring)
    rows: list[dict[str, Any]] = []
    for finish in [None, *grid(order, config)]:
        contestant = full_run(config.sampler) if finish is None else _contestant(finish, config)
        table = draw_cases(components.rollouts, contestant, cases, judge=judge).table(cases)
        means = {name: table.mean(name) for name in ("nfe", *METRIC_NAMES, *SCORE_NAMES)}
        rows.append({**_place(finish), **means, "images": int(table.drawn.sum()), "dropped": len(table.errors)})
        advance()
    return rows


def grid(order: FinishOrder, config: Config) -> list[Finish]:
    """Every combination once: without passes the solver does not matter, and no more passes than steps were left."""
    finishes: dict[tuple[str, int, int], Finish] = {}
    for stop_at in order.stops:
        for count in order.passes:
            shortened = min(count, config.sampler.num_steps - 1 - stop_at)
            for solver in SOLVERS if shortened else SOLVERS[:1]:
                finish = Finish(solver=solver, passes=shortened, stop_at=stop_at)
                finishes[solver, shortened, stop_at] = finish
    return list(finishes.values())


def _contestant(finish: Finish, config: Config) -> Contestant:
    """Its warm-up ends where it stops, so that it can stop before the configuration's own warm-up is over."""
    changes = {"warmup_steps": finish.stop_at, "finish_steps": finish.passes, "finish_solver": finish.solver}
    return fixed_stop(finish.stop_at, config.sampler.model_copy(update=changes))


def _place(finish: Finish | None) -> dict[str, Any]:
    if finish is None:
        return {"finish": None}
    return {"finish": finish.solver, "passes": finish.passes, "stop_at": finish.stop_at}


def choice(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The finish whose quality at equal mean NFE is best, averaged over the quality/NFE front.

    Each finish (solver, passes) is a curve over its stops. Curves are compared where all of them have NFE to tell:
    linear in between, mean of the scene score over an even grid. With fewer than two stops, or without scene scores or
    a common range, there is nothing to choose by.
    """
    curves: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for row in rows[1:]:
        curves.setdefault((row["finish"], row["passes"]), []).append((row["nfe"], row["scene_soft"]))
    curves = {finish: sorted(points) for finish, points in curves.items() if len(points) > 1}
    if not curves or any(math.isnan(score) for points in curves.values() for _, score in points):
        return {}
    low, high = (pick(points[end][0] for points in curves.values()) for pick, end in ((max, 0), (min, -1)))
    if low >= high:
        return {}
    grid_nfe = np.linspace(low, high, _GRID)
    means = {finish: _mean_over(grid_nfe, points) for finish, points in curves.items()}
    solver, passes = max(means, key=lambda finish: means[finish])
    means_by_name = {f"{name} {count}": mean for (name, count), mean in means.items()}
    return {"solver": solver, "passes": passes, "nfe_from": low, "nfe_to": high, "mean_scene": means_by_name}


def _mean_over(grid_nfe: NDArray[np.float64], points: Sequence[tuple[float, float]]) -> float:
    nfe, scores = np.array(points).T
    return float(np.interp(grid_nfe, nfe, scores).mean())


def choice_text(chosen: dict[str, Any]) -> str:
    """The choice in a sentence."""
    if not chosen:
        return "No choice: give two stops or more whose NFE overlap, and prompts that have scene scores."
    ranked = sorted(chosen["mean_scene"].items(), key=lambda item: -item[1])
    others = ", ".join(f"{name}: {mean:.3f}" for name, mean in ranked)
    return (
        f"Best at equal mean NFE ({chosen['nfe_from']:.1f} to {chosen['nfe_to']:.1f}): set "
        f"sampler.finish_solver={chosen['solver']} sampler.finish_steps={chosen['passes']}. "
        f"Mean scene score there by finish: {others}."
    )


def table_of(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows for people."""
    table = Table(box=None, header_style="bold")
    columns = (*_SHOWN, *_SCORES)
    for name in ("stop at", "finish", "passes", *(name for name, _, _ in columns)):
        table.add_column(name, justify="left" if name == "finish" else "right")
    for row in rows:
        place = [str(row.get("stop_at", "-")), row["finish"] or "full schedule", str(row.get("passes", "-"))]
        table.add_row(*place, *(_number(row[key], form) for _, key, form in columns))
    return table


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)
