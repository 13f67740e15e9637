"""`addiffusion bench train`: what an iteration costs beside its rollouts, and how that grows with the workers.

The share is measured on the real thing (Ray, rollout workers, reward service, learner, run folder). Weak scaling is
measured with simulated workers, which sleep for as long as the real ones were seen to take: what it shows is how the
learner, the broadcast and the driver keep up with more workers, not how a machine's cores do.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from addiffusion.config import Config
from addiffusion.configuration.files import load_config
from addiffusion.errors import ConfigError
from addiffusion.records import Episode
from evaluation.tables import Table
from launch.bench.fleet import FleetFigures, FleetSetup, made_templates, pool_of, simulated_fleet, unit_sizes
from launch.bench.orders import TrainOrder
from launch.runtime.cluster import ray_running
from launch.runtime.components import Components, unpaid
from launch.runtime.console import RunView, Stage
from launch.runtime.distributed import distributed_components
from launch.training.loop import TrainingLoop
from launch.training.run_folder import RunFolder
from learner.iteration import IterationReport
from learner.rollouts import RayRollouts
from learner.training import Training, build_ledger

PARTS: Final = ("update", "broadcast", "tickets", "driver")
FLEET_COLUMNS: Final = {
    "waited_s": "waited s",
    "update_s": "update s",
    "broadcast_s": "broadcast s",
    "dispatch_s": "dispatch s",
    "driver_s": "driver s",
    "cpu_s": "own CPU s",
    "weights_mb": "weights MB",
    "episodes_mb": "episodes MB",
    "checkpoint_mb": "checkpoint MB",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSetup:
    """What to measure, and the configuration of it."""

    order: TrainOrder
    config: Config


def train_setup(order: TrainOrder, files: Sequence[Path], overrides: Sequence[str]) -> TrainSetup:
    """A training with a reward that needs no references.

    Raises:
        ConfigError: it would not run on Ray.
    """
    config = unpaid(load_config(files, overrides))
    if config.cluster.mode != "ray":
        raise ConfigError("bench train measures a distributed training: leave cluster.mode=ray.")
    ppo = config.ppo.model_copy(update={"iterations": order.iterations + 1})
    return TrainSetup(config=config.model_copy(update={"ppo": ppo}), order=order)


def bench_train(setup: TrainSetup, tell: Console) -> dict[str, Any]:
    """Both measurements as one result.

    Raises:
        ClusterError: Ray can't be started or joined.
    """
    order = setup.order
    with ray_running(setup.config):
        if order.decisions and order.observation_width and order.episode_s is not None:
            templates = made_templates(order.observation_width, order.decisions)
            return bench_fleets(
                FleetSetup(order=order, config=setup.config, templates=templates, per_episode_s=order.episode_s), tell
            )
        with distributed_components(setup.config) as components:
            iterations = setup.config.ppo.iterations
            tell.print(f"training {iterations} iterations with {setup.config.rollout.workers} workers")
            measured = _Measured(setup, components)
            with Stage(tell, "iterations", iterations, headline="", counted=lambda: len(measured.reports)):
                measured.run()
        result = measured.result()
        return result | bench_fleets(_fleet_setup(setup, measured.reports[-1].episodes, result), tell)


def bench_fleets(setup: FleetSetup, tell: Console) -> dict[str, Any]:
    """Every fleet in turn, and weak scaling: the time of an iteration of the smallest over that of each."""
    fleets: list[FleetFigures] = []
    sizes = sorted(set(setup.order.fleets))
    with Stage(tell, "simulated fleets", len(sizes), headline="", counted=lambda: len(fleets)):
        for workers in sizes:
            tell.print(f"simulating {workers} workers, {setup.rollouts_s:.1f} s of rollouts an iteration each")
            fleets.append(simulated_fleet(setup, workers))
            tell.print(f"{workers} workers: {_seconds_words(fleets[-1])}")
    scaling = {str(fleet.workers): fleets[0].iteration_s / fleet.iteration_s for fleet in fleets}
    idle = {str(fleet.workers): setup.rollouts_s + fleet.cpu_s for fleet in fleets}
    least = idle[str(sizes[0])]
    return {
        "simulated_workers": True,
        "simulated_episode_s": setup.per_episode_s,
        "simulated_rollouts_s": setup.rollouts_s,
        "observation_width": setup.templates[0].phi.shape[1],
        "unit_kb": unit_sizes(setup.templates),
        "fleets": [asdict(fleet) for fleet in fleets],
        "weak_scaling_by_workers": scaling,
        "weak_scaling": [*scaling.values()][-1],
        "weak_scaling_idle_by_workers": {workers: least / seconds for workers, seconds in idle.items()},
    }


def _seconds_words(fleet: FleetFigures) -> str:
    parts = {name: text for name, text in FLEET_COLUMNS.items() if name.endswith("_s")}
    return ", ".join(
        [f"{fleet.iteration_s:.2f} s", *(f"{text} {getattr(fleet, name):.2f}" for name, text in parts.items())]
    )


def _fleet_setup(setup: TrainSetup, episodes: Sequence[Episode], result: Mapping[str, Any]) -> FleetSetup:
    """Fleets of measured episodes, or of made ones as far as the order says so."""
    order = setup.order
    measured_s = result["rollout_s"] * setup.config.rollout.workers / result["episodes"]
    width, decisions = episodes[0].phi.shape[1], round(result["decisions"] / result["episodes"])
    as_measured = order.decisions is None and order.observation_width is None
    made = partial(made_templates, order.observation_width or width, order.decisions or decisions)
    return FleetSetup(
        order=order,
        config=setup.config,
        templates=tuple(episodes) if as_measured else made(),
        per_episode_s=measured_s if order.episode_s is None else order.episode_s,
    )


def table_of(result: Mapping[str, Any]) -> Table:
    """The result for people."""
    table = Table(box=None, header_style="bold", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    if "wall_s" in result:
        table.add_row("an iteration", f"{result['wall_s'] / result['iterations']:.2f} s")
        table.add_row("of which beside the rollouts", f"{100 * result['learner_share']:.1f} %")
        for part in PARTS:
            table.add_row(f"  {part}", f"{100 * result[f'{part}_share']:.1f} %")
    for workers, efficiency in result["weak_scaling_by_workers"].items():
        table.add_row(f"weak scaling, {workers} simulated workers", f"{efficiency:.3f}")
    for name, kilobytes in result["unit_kb"].items():
        table.add_row(name, f"{kilobytes:.1f} kB")
    return table


def fleet_table(result: Mapping[str, Any]) -> Table:
    """Where an iteration of each simulated fleet goes, for people."""
    table = Table(box=None, header_style="bold")
    columns = ("workers", "iteration s", "scaling", "on idle cores", *FLEET_COLUMNS.values())
    for column in columns:
        table.add_column(column, justify="right")
    for fleet in result["fleets"]:
        scaling = result["weak_scaling_by_workers"][str(fleet["workers"])]
        cells = (f"{fleet[name]:.2f}" for name in FLEET_COLUMNS)
        idle = result["weak_scaling_idle_by_workers"][str(fleet["workers"])]
        table.add_row(str(fleet["workers"]), f"{fleet['iteration_s']:.2f}", f"{scaling:.3f}", f"{idle:.3f}", *cells)
    return table


@dataclass(slots=True)
class _Measured:
    """A real training, of which the first iteration is not counted."""

    setup: TrainSetup
    components: Components
    reports: list[IterationReport] = field(default_factory=list[IterationReport])
    marks: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    """(wall clock, seconds waited for workers) before each iteration and after the last."""

    def run(self) -> None:
        """Train in a folder that is thrown away."""
        config, components = self.setup.config, self.components
        training = _Noted(
            config,
            ledger=build_ledger(config, pool_of(config)),
            rollouts=components.rollouts,
            learner=components.learner,
        )
        training.reports = self.reports
        view = RunView(Console(file=io.StringIO()), iterations=config.ppo.iterations)
        with tempfile.TemporaryDirectory() as home:
            folder = RunFolder.create(Path(home) / "run", config)
            loop = TrainingLoop(config, training, folder, view, components=components, stop_on_collapse=False)
            with folder, loop:
                loop.run(self._mark)
                self._mark()

    def _mark(self) -> bool:
        assert isinstance(self.components.rollouts, RayRollouts)
        self.marks.append((time.perf_counter(), self.components.rollouts.waited_s))
        return False

    def result(self) -> dict[str, Any]:
        """Shares of the measured iterations' wall clock."""
        (begin_s, waited_before_s), (end_s, waited_s) = self.marks[1], self.marks[-1]
        reports, wall_s, rollout_s = self.reports[1:], end_s - begin_s, waited_s - waited_before_s
        broadcast_s = sum(report.broadcast_s for report in reports)
        parts = {
            "update": sum(report.update_s for report in reports) - broadcast_s,
            "broadcast": broadcast_s,
            "tickets": sum(report.collect_s for report in reports) - rollout_s,
            "driver": wall_s - sum(report.collect_s + report.update_s for report in reports),
        }
        return {
            "workers": self.setup.config.rollout.workers,
            "iterations": len(reports),
            "episodes": sum(len(report.episodes) for report in reports),
            "decisions": sum(len(episode.actions) for report in reports for episode in report.episodes),
            "wall_s": wall_s,
            "rollout_s": rollout_s,
            **{f"{part}_share": seconds / wall_s for part, seconds in parts.items()},
            "learner_share": 1 - rollout_s / wall_s,
        }


class _Noted(Training):
    """A training that keeps its reports."""

    reports: list[IterationReport]

    def step(self) -> IterationReport:
        """One iteration, noted."""
        report = super().step()
        self.reports.append(report)
        return report
