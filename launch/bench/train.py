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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import ray
from rich.console import Console

from addiffusion.config import Config
from addiffusion.configuration.files import load_config
from addiffusion.errors import ConfigError
from addiffusion.prompts import load_prompts
from addiffusion.records import Episode
from evaluation.tables import Table
from launch.bench.orders import TrainOrder
from launch.bench.simulated import SimulatedWorker
from launch.runtime.cluster import ray_running
from launch.runtime.components import Components, unpaid
from launch.runtime.console import RunView, Stage
from launch.runtime.distributed import distributed_components
from launch.training.loop import TrainingLoop
from launch.training.run_folder import RunFolder
from learner.algorithm_config import build_ppo_config
from learner.iteration import IterationReport
from learner.ppo_learner import EpisodePPOLearner
from learner.rollouts import RayRollouts
from learner.tickets import PoolEntry
from learner.training import Training, build_ledger
from learner.update import PolicyLearner

PARTS: Final = ("update", "broadcast", "tickets", "driver")
SIMULATED: Final = (1, 2, 4, 8)
_START_TIMEOUT_S: Final = 180.0


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
    with ray_running(setup.config):
        with distributed_components(setup.config) as components:
            iterations = setup.config.ppo.iterations
            tell.print(f"training {iterations} iterations with {setup.config.rollout.workers} workers")
            measured = _Measured(setup, components)
            with Stage(tell, "iterations", iterations, headline="", counted=lambda: len(measured.reports)):
                measured.run()
        result = measured.result()
        per_episode_s = result["rollout_s"] * setup.config.rollout.workers / result["episodes"]
        seconds: dict[int, float] = {}
        episodes = measured.reports[-1].episodes
        with Stage(tell, "simulated fleets", len(SIMULATED), headline="", counted=lambda: len(seconds)):
            for workers in SIMULATED:
                seconds[workers] = simulated_iteration_s(setup, episodes, per_episode_s, workers, tell)
    scaling = {str(workers): seconds[1] / seconds[workers] for workers in SIMULATED}
    return result | {
        "simulated_workers": True,
        "simulated_iteration_s": {str(workers): seconds[workers] for workers in SIMULATED},
        "weak_scaling_by_workers": scaling,
        "weak_scaling": scaling[str(SIMULATED[-1])],
    }


def table_of(result: Mapping[str, Any]) -> Table:
    """The result for people."""
    table = Table(box=None, header_style="bold", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("an iteration", f"{result['wall_s'] / result['iterations']:.2f} s")
    table.add_row("of which beside the rollouts", f"{100 * result['learner_share']:.1f} %")
    for part in PARTS:
        table.add_row(f"  {part}", f"{100 * result[f'{part}_share']:.1f} %")
    for workers, efficiency in result["weak_scaling_by_workers"].items():
        table.add_row(f"weak scaling, {workers} simulated workers", f"{efficiency:.3f}")
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
            ledger=build_ledger(config, _pool(config)),
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


def simulated_iteration_s(
    setup: TrainSetup, templates: Sequence[Episode], per_episode_s: float, workers: int, tell: Console
) -> float:
    """Seconds of an iteration with simulated workers; the work of each is the same, however many there are.

    Args:
        setup: tickets of a worker, iterations, and the configuration of the learner.
        templates: episodes of real size, which the workers return in turn.
        per_episode_s: sleep in place of an episode, in seconds.
        workers: how many.
        tell: where it is said what is measured.
    """
    tickets, width = setup.order.tickets, templates[0].phi.shape[1]
    tell.print(f"simulating {workers} workers, {tickets * per_episode_s:.1f} s of rollouts an iteration each")
    ppo = setup.config.ppo.model_copy(update={"batch_size": tickets * workers})
    config = setup.config.model_copy(update={"ppo": ppo})
    kind: Any = ray.remote(num_cpus=0.01)(SimulatedWorker)
    shared = ray.put(list(templates))
    actors = {number: kind.remote(shared, per_episode_s) for number in range(workers)}
    ray.get([actor.ping.remote() for actor in actors.values()], timeout=_START_TIMEOUT_S)
    learner = PolicyLearner(
        cast("EpisodePPOLearner", build_ppo_config(config, observation_width=width).build_learner())
    )
    training = Training(
        config, ledger=build_ledger(config, _pool(config)), rollouts=RayRollouts(actors, config), learner=learner
    )
    training.step()
    started = time.perf_counter()
    for _ in range(setup.order.iterations):
        training.step()
    seconds = (time.perf_counter() - started) / setup.order.iterations
    for actor in actors.values():
        ray.kill(actor)
    return seconds


def _pool(config: Config) -> list[PoolEntry]:
    section, seed = config.prompts, config.run.seed
    prompts = load_prompts(section, split="train", count=section.train_count, seed=seed)
    return [PoolEntry(prompt=prompt, seed=prompt.prompt_id) for prompt in prompts]
