"""Iterations of a run, one after another, and all that is shown, kept and checked between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from addiffusion.config import Config
from addiffusion.errors import RolloutError
from addiffusion.rollouts import HasWorkers
from launch.runtime.components import Components
from launch.runtime.console import RunView
from launch.runtime.metrics import checkpoint_score, export, iteration_row
from launch.training.plotter import Plotter
from launch.training.run_folder import RunFolder
from launch.training.tracking import Tracker
from learner.alarms import Alarm, alarm_metrics, possible_actions, raised_alarms
from learner.iteration import IterationReport
from learner.training import Training
from rollout_workers.recorder import EpisodeRecorder

_SCORED_ITERATIONS = 5
"""Iterations whose mean of ``checkpoint.best_metric`` is a checkpoint's score."""

Row = Mapping[str, float | None]


class TrainingLoop:
    """Trains until the run is finished, somebody asks it to end, or (if wanted) its policy collapses."""

    def __init__(
        self,
        config: Config,
        training: Training,
        folder: RunFolder,
        view: RunView,
        *,
        components: Components,
        stop_on_collapse: bool,
    ) -> None:
        """Go on where ``training`` stands.

        Args:
            config: of the run.
            training: from where to go on.
            folder: of the run, open for writing; its metrics must end where ``training`` stands.
            view: where progress is shown.
            components: who rolls out, and takes the metrics.
            stop_on_collapse: whether an alarm of ``alarms.stop_on`` ends the run.
        """
        self._config, self._training, self._folder, self._view = config, training, folder, view
        self._stop_on_collapse = stop_on_collapse
        self._rollouts, self._meters = components.rollouts, components.meters(folder.path.name)
        self._rows: list[Row] = list(folder.metrics())
        self._seconds: list[float] = []
        self._alarms: tuple[Alarm, ...] = ()
        self._recorder = self._make_recorder()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        section = self._config.tracking
        self._tracker = self._stack.enter_context(Tracker(self._config, self._folder.path))
        num_steps = self._config.sampler.num_steps
        plotter = Plotter(self._folder.plots, num_steps=num_steps, every_s=section.plot_every_s)
        self._plotter = self._stack.enter_context(plotter)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def run(self, stop: Callable[[], bool]) -> Alarm | None:
        """Train; ``stop`` is asked between two iterations. Ends with a checkpoint, however it ends.

        Returns:
            The alarm that ended the run; None when it ended for another reason.
        """
        collapse: Alarm | None = None
        report: IterationReport | None = None
        try:
            with self._view.iterations(self._training.iteration):
                while not (self._training.finished or stop() or collapse):
                    report = self._training.step()
                    collapse = self._note(report)
        except RolloutError:
            self._keep(report)
            raise
        if report is not None and not self._training.finished:
            self._save()
            self._plotter.finish(self._rows, report.episodes)
        return collapse

    def _keep(self, last: IterationReport | None) -> None:
        """Save what was trained before the rollouts failed; ``last`` is this run's last iteration, if there was one."""
        if last is not None and not self._training.due():
            self._save()

    def _note(self, report: IterationReport) -> Alarm | None:
        row = iteration_row(
            report,
            earlier_s=self._seconds,
            iterations_left=self._config.ppo.iterations - self._training.iteration,
            workers=self._rollouts.worker_status() if isinstance(self._rollouts, HasWorkers) else None,
        )
        self._seconds.append(report.collect_s + report.update_s)
        raised = raised_alarms([*self._rows, row], self._config.alarms, possible=possible_actions(report.episodes))
        row |= alarm_metrics(raised)
        self._publish(row, report)
        return self._ring(raised)

    def _publish(self, row: dict[str, float], report: IterationReport) -> None:
        self._rows.append(row)
        self._folder.append(row)
        self._tracker.log(row)
        export(row, self._meters)
        if self._recorder is not None:
            self._recorder.append(report.episodes)
        if self._training.due():
            self._save()
        self._view.iteration(row)
        self._plotter.offer(self._rows, report.episodes)

    def _ring(self, raised: Sequence[Alarm]) -> Alarm | None:
        """Warn of alarms that did not hold before; the first one that ends the run, if alarms may."""
        known = {alarm.name for alarm in self._alarms}
        for alarm in raised:
            if alarm.name not in known:
                self._view.say(f"warning: {alarm.name}: {alarm.message}")
        self._alarms = tuple(raised)
        ending = (alarm for alarm in raised if alarm.name in self._config.alarms.stop_on)
        return next(ending, None) if self._stop_on_collapse else None

    def _save(self) -> None:
        score = checkpoint_score(self._rows[-_SCORED_ITERATIONS:], self._config.checkpoint.best_metric)
        self._training.save(self._folder.path, score=score)

    def _make_recorder(self) -> EpisodeRecorder | None:
        if not self._config.run.record_episodes:
            return None
        recorder = EpisodeRecorder(self._folder.path / "episodes", name="train")
        recorder.rewind(self._training.iteration)
        return recorder
