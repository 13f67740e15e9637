"""A training run from references to report. The loop is the same whoever rolls out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from rich.console import Console

from addiffusion.bank.archive import Bank
from addiffusion.config import Config
from addiffusion.errors import OutputError, RolloutError, ScorerError
from addiffusion.records import Episode, Prompt
from evaluation.comparison.generalization import GeneralizationGap, generalization_gap
from evaluation.comparison.held_out import (
    HeldOut,
    collapse,
    compare_held_out,
    evidence_json,
    evidence_line,
    static_sampler,
)
from evaluation.comparison.reward_hacking import reward_hacking
from evaluation.report.film import plot_film_strips
from evaluation.report.training_plots import plot_action_mix, plot_learning_curves, plot_stopping_times
from evaluation.report.training_table import held_out_table, summary
from launch.runtime.build import build_components
from launch.runtime.components import Components
from launch.runtime.console import RunView, duration
from launch.runtime.gpus import GpuOffer, described, shared_out
from launch.runtime.interrupt import Interrupt, interruptible
from launch.training.loop import TrainingLoop
from launch.training.preflight import STATIC_STEPS, Plan
from launch.training.references import (
    Pairs,
    References,
    ReferenceStore,
    draw_references,
    known_references,
    training_pairs,
    visits_note,
)
from launch.training.run_folder import RunFolder
from launch.training.warm_start import demonstrations_of, report_table, start_warm, warm_epochs
from learner.alarms import Alarm
from learner.algorithm_config import OFFLINE
from learner.settings import drawn_setting
from learner.tickets import PoolEntry
from learner.training import Training, build_ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended."""

    result: dict[str, Any] | None
    """The final comparison; None when the run ended before it."""
    collapse: Alarm | None = None
    """The alarm that ended the run (`--stop-on-collapse`)."""

    @property
    def interrupted(self) -> bool:
        """Whether somebody ended the run early."""
        return self.result is None and self.collapse is None


def run(
    plan: Plan, *, console: Console, roles: Callable[[Config], AbstractContextManager[Components]] = build_components
) -> Outcome:
    """Train as planned, then compare with fixed samplers; everything lands in the plan's folder.

    The folder is made once all ``roles`` stand, so a run that can't start leaves nothing behind.

    Raises:
        UsageError: a role can't start as configured.
        RolloutError: images could not be finished.
    """
    start = time.perf_counter()
    view = RunView(console, iterations=plan.config.ppo.iterations)
    view.say(f"starting {_cast(plan.config)}")
    asked = "{} (Ctrl-C again to leave at once)"
    with ExitStack() as stack:
        stack.enter_context(view)
        is_there = plan.begun or plan.checkpoint is not None
        resumed = stack.enter_context(RunFolder.resumed(plan.path)) if is_there else None
        with view.progress("starting"):
            components = stack.enter_context(roles(plan.config))
            # Of a model from the hub nothing could be said before; the table at the end would be too late.
            components.lay_out(static_sampler(plan.config), STATIC_STEPS)
        if plan.config.cluster.address != "local" and components.devices:
            view.say(f"at work: {components.devices}")
        folder = resumed or stack.enter_context(RunFolder.begun(plan.path, plan.config))
        components.keep_reports(folder.path)
        view.say(f"run folder {folder.path}")
        stages = _Run(plan, components, folder, view, start=start)
        stages.interrupt = stack.enter_context(interruptible(lambda: view.say(asked.format(stages.promise))))
        return stages.to_the_end()


class _Run:
    """The stages of one run in their order."""

    def __init__(self, plan: Plan, components: Components, folder: RunFolder, view: RunView, *, start: float) -> None:
        self.plan = plan
        self.config = plan.config
        self.components = components
        self.folder = folder
        self.view = view
        self.interrupt = Interrupt()
        self.promise = ""
        """What Ctrl-C makes the present stage do."""
        self.start = start

    def to_the_end(self) -> Outcome:
        """All stages; when episodes can't be collected, what is kept is said before the error leaves."""
        try:
            return self._stages()
        except OutputError as error:
            then = f"Then go on with `addiffusion train resume={self.folder.path}`."
            raise OutputError(f"{error.message} {then}", **error.facts) from error
        except (RolloutError, ScorerError):
            self.view.say(f"what is finished is kept: `addiffusion train resume={self.folder.path}` goes on")
            raise

    def _stages(self) -> Outcome:
        """References, training, comparison, figures."""
        pairs = self._pairs()
        if note := visits_note(self.config, len(pairs)):
            self.view.say(note)
        self.promise = "finishing these full-length images, then keeping them"
        known = self._references(pairs)
        if self.interrupt.requested:
            self.view.say(f"{len(known)} of {len(pairs)} full-length images of the training prompts are kept")
            return self._stopped()
        pool = [
            PoolEntry(
                prompt=prompt,
                seed=seed,
                reference=known[prompt.text, seed],
                setting=drawn_setting(self.config, seed),
            )
            for prompt, seed in pairs
        ]
        self.promise = "finishing this iteration, then saving"
        collapse = self._train(pool)
        if collapse is not None:
            self.view.say(f"stopped because of {collapse.name}; the checkpoint and the plots are in {self.folder.path}")
            return Outcome(result=None, collapse=collapse)
        if self.interrupt.requested:
            return self._stopped()
        self.promise = "training is saved and the comparison goes on"
        held_out = self._compare()
        if not held_out.episodes:
            raise RolloutError(
                f"none of the policy's held-out images could be drawn; the first one: {held_out.lost[0]}"
            )
        return Outcome(result=self._report(held_out, self._gap(pool, held_out.episodes)))

    def _stopped(self) -> Outcome:
        self.view.say(f"stopped; go on with `addiffusion train resume={self.folder.path}`")
        return Outcome(result=None)

    def _pairs(self) -> Pairs:
        """What is trained on: the training prompts, or whatever a bank holds where nothing else is asked."""
        bank = self.plan.bank
        if bank is not None and self.config.ppo.algorithm in OFFLINE:
            return [(one.prompt, one.seed) for one in bank.trajectories]
        return training_pairs(self.plan.train_prompts, seed=self.config.run.seed)

    def _references(self, pairs: Pairs) -> References:
        """Those kept, those of the bank, and those drawn now: of every pair, unless the run was interrupted."""
        store = ReferenceStore(self.folder.path, pairs)
        known = store.load()
        of_bank = known_references([pair for pair in pairs if _key(pair) not in known], self.plan.bank)
        store.add(of_bank)
        known |= of_bank
        missing = [pair for pair in pairs if _key(pair) not in known]
        if not missing:
            return known
        with self.view.progress("full-length images of the training prompts", len(missing)) as advance:
            batches = draw_references(self.components.rollouts, missing, self.config)
            while not self.interrupt.requested and (drawn := next(batches, None)) is not None:
                store.add(drawn)
                known |= drawn
                advance(len(drawn))
        return known

    def _train(self, pool: Sequence[PoolEntry]) -> Alarm | None:
        demonstrations = None if self.plan.bank is None else demonstrations_of(self.plan.bank, self.config)
        training = Training(
            self.config,
            ledger=build_ledger(self.config, pool),
            rollouts=demonstrations or self.components.rollouts,
            learner=self.components.learner,
        )
        if self.plan.checkpoint is not None:
            training.restore(self.plan.checkpoint)
        if self.plan.begun or self.plan.checkpoint is not None:
            self.folder.rewind(training.iteration)
        if self.plan.checkpoint is None and self.plan.bank is not None and demonstrations is None:
            self._start_warm(training, self.plan.bank)
        loop = TrainingLoop(
            self.config,
            training,
            self.folder,
            self.view,
            components=self.components,
            stop_on_collapse=self.plan.stop_on_collapse,
        )
        with loop:
            alarm = loop.run(lambda: self.interrupt.requested)
        if demonstrations is not None:
            self.components.rollouts.set_weights(self.components.learner.weights(), training.iteration)
        return alarm

    def _start_warm(self, training: Training, bank: Bank) -> None:
        with self.view.progress(f"warm start on {len(bank.trajectories)} trajectories", warm_epochs(self.config)) as on:
            report = start_warm(self.components.learner, bank, self.config, advance=on)
        training.share_weights()
        self.view.say(report_table(report))
        self.folder.write_warm_start(report.as_json())
        training.save(self.folder.path)

    def _compare(self) -> HeldOut:
        prompts = self.plan.test_prompts
        with self.view.progress("held-out images", 3 * len(prompts)) as advance:
            return compare_held_out(
                self.components.rollouts, self.components.scoring, prompts=prompts, config=self.config, advance=advance
            )

    def _gap(self, pool: Sequence[PoolEntry], held_out: Sequence[Episode]) -> GeneralizationGap:
        count = min(len(pool), len(held_out))
        with self.view.progress("images of training pairs", count) as advance:
            gap = generalization_gap(self.components.rollouts, pool, held_out, self.config)
            advance(count)
        return gap

    def _draw(self, episodes: Sequence[Episode]) -> None:
        """The figures; one that can't be written takes no result with it."""
        try:
            self._draw_all(episodes)
        except OutputError as error:
            self.view.say(f"warning: {error.message}")

    def _draw_all(self, episodes: Sequence[Episode]) -> None:
        plots, num_steps = self.folder.plots, self.config.sampler.num_steps
        if rows := self.folder.metrics():
            plot_learning_curves(rows, plots / "learning_curves.png")
        if episodes:
            plot_action_mix(episodes, plots / "action_mix.png", num_steps=num_steps)
            plot_stopping_times(episodes, plots / "stopping_times.png", num_steps=num_steps)
            plot_film_strips(episodes, plots / "film_strips.png")

    def _report(self, held_out: HeldOut, gap: GeneralizationGap) -> dict[str, Any]:
        rows = self.folder.metrics()
        result = summary(held_out) | evidence_json(held_out.result) | gap.as_json()
        result["reward_hacking"] = reward_hacking(held_out.result, self.config.reward)
        result["episodes_dropped"] += sum(row["episodes_dropped"] or 0 for row in rows) + gap.dropped_count
        result |= {
            "iterations": len(rows),
            "run": str(self.folder.path),
            "episodes_per_s": median(row["episodes_per_s"] or 0.0 for row in rows) if rows else None,
            "run_seconds": time.perf_counter() - self.start,
        }
        self.view.say(held_out_table(held_out.result))
        self.view.say(evidence_line(held_out.result))
        self.view.say(gap.line())
        self.folder.write_result(result)
        self._draw(held_out.episodes)
        if lost := held_out.warning():
            self.view.say(f"warning: {lost}")
        if advice := gap.advice():
            self.view.say(f"note: {advice}")
        for warning in (collapse(held_out.episodes), result["reward_hacking"]):
            if warning:
                self.view.say(f"warning: {warning}")
        self.view.say(f"{duration(result['run_seconds'])} in all; everything is in {self.folder.path}")
        return result


def _cast(config: Config) -> str:
    """The roles, and, where this machine is all there is, what each works on."""
    if config.cluster.mode == "serial":
        return "1 rollout worker, reward service and learner"
    gpus = torch.cuda.device_count() if config.cluster.address == "local" else 0
    return described(shared_out(config, GpuOffer(total=gpus), where="this machine"), gpus)


def _key(pair: tuple[Prompt, int]) -> tuple[str, int]:
    prompt, seed = pair
    return prompt.text, seed
