"""`addiffusion tune`: Ray Tune and Optuna over any configuration keys."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search.optuna import OptunaSearch
from rich.console import Console

from addiffusion.bank.archive import open_bank
from addiffusion.config import Config
from addiffusion.configuration.files import load_config
from addiffusion.configuration.text import to_yaml
from addiffusion.errors import RolloutError
from addiffusion.files import write_text
from evaluation.tables import Table
from launch.runtime.cluster import ray_running
from launch.runtime.console import Stage
from launch.runtime.folder_lock import locked
from launch.tuning.orders import TuneOrder
from launch.tuning.record import keep_study, study_record
from launch.tuning.study import Bounds, Study, as_overrides
from launch.tuning.trial import run_trial

BEST_FILE = "best.yaml"
_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySetup:
    """An order with its study read."""

    study: Study
    order: TuneOrder
    files: Sequence[Path] = ()
    overrides: Sequence[str] = ()
    """Of all trials; the study's own keys go over them."""

    def config(self, values: dict[str, Any] | None = None) -> Config:
        """The configuration of the trial with these values."""
        replay = () if self.order.bank is None else ("policy.actions=[continue,stop]",)
        changed = as_overrides({**self.study.base, **(values or {})})
        return load_config(self.files, [*replay, *self.overrides, *changed])


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What came of a study, best trial first."""

    trials: tuple[dict[str, Any], ...]
    """Values of the varied keys, and what the trial achieved."""
    best_file: Path | None
    """None where no trial has ended yet."""
    failed_count: int
    left_count: int
    """Trials that an interrupted study still has to run: start it again in its folder."""


def tune_study(setup: StudySetup, *, console: Console) -> Tuned:
    """Run all trials that are missing in the folder, and write the best configuration there.

    Raises:
        UsageError: a configuration of the study or the bank can't be used, or the folder holds another study.
        RolloutError: every trial failed.
    """
    config, folder, bank = setup.config(), setup.order.folder, setup.order.bank
    if bank is not None:
        open_bank(bank, config).require_one_setting("A study")  # trials would find out one by one
    with locked(folder), ray_running(config):
        keep_study(folder, study_record(setup.study, config, bank))
        console.print(f"{setup.study.trials} trials in {folder}", highlight=False)
        with Stage(console, "trials", setup.study.trials, headline="", counted=lambda: _ended_count(folder)):
            results = _tuner(setup).fit()
        done = [_trial(result) for result in results if result.error is None and _reported(result)]
    failed = len(results.errors)
    left = setup.study.trials - len(done) - failed
    if failed and not done and not left:
        raise RolloutError(f"Every trial of the study failed; the first: {last_line(results.errors[0])}")
    done.sort(key=lambda trial: -trial["objective"])
    path = _write_best(setup, done[0]) if done else None
    return Tuned(trials=tuple(done), best_file=path, failed_count=failed, left_count=left)


def table(tuned: Tuned, study: Study) -> Table:
    """The best trials."""
    shown = Table(
        title=f"best of {len(tuned.trials)} trials, by {study.objective.score} - {study.objective.c_nfe:g} NFE"
    )
    keys = [*study.space, "objective", "reward", "nfe", "scene_soft"]
    for key in keys:
        shown.add_column(key, justify="right")
    for trial in tuned.trials[:_SHOWN]:
        shown.add_row(*(f"{value:.4g}" if isinstance(value := trial[key], float) else str(value) for key in keys))
    return shown


def _tuner(setup: StudySetup) -> tune.Tuner:
    folder = setup.order.folder.absolute()
    trainable = tune.with_resources(Trainable(setup), {"cpu": 1})
    if tune.Tuner.can_restore(str(folder)):
        return tune.Tuner.restore(str(folder), trainable=trainable, resume_unfinished=True, restart_errored=True)
    search = OptunaSearch(metric="objective", mode="max", seed=setup.config().run.seed)
    return tune.Tuner(
        trainable,
        param_space={_flat(key): _domain(domain) for key, domain in setup.study.space.items()},
        tune_config=tune.TuneConfig(
            metric="objective",
            mode="max",
            num_samples=setup.study.trials,
            search_alg=search,
            max_concurrent_trials=setup.order.concurrent,
            reuse_actors=True,  # a fresh process spends longer on imports than a replayed trial takes
        ),
        run_config=tune.RunConfig(name=folder.name, storage_path=str(folder.parent), verbose=1),
    )


class Trainable:
    """A function of the varied values, for Tune's workers."""

    __name__ = "trial"

    def __init__(self, setup: StudySetup) -> None:
        self._setup = setup
        self._folder = Path.cwd()

    def __call__(self, values: dict[str, Any]) -> None:
        """Train and report once."""
        tune.report(self.trained(values))

    def trained(self, values: dict[str, Any]) -> dict[str, float]:
        """What the trial with ``values`` achieved, wherever this process was started."""
        os.environ["OMP_NUM_THREADS"] = "1"
        with suppress(OSError):  # another machine may lack the folder; absolute paths can lead somewhere even so
            os.chdir(self._folder)  # relative paths of files, overrides and bank were given there
        config = self._setup.config({_dotted(key): value for key, value in values.items()})
        return run_trial(config, self._setup.study.objective, bank=self._setup.order.bank)


def _flat(key: str) -> str:
    """Tune reads dots and slashes of keys as nesting."""
    return key.replace(".", ":")


def _dotted(key: str) -> str:
    return key.replace(":", ".")


def _domain(domain: Bounds | Sequence[Any]) -> Any:
    if not isinstance(domain, Bounds):
        return tune.choice(list(domain))
    if domain.integer:
        low, high = int(domain.low), int(domain.high) + 1
        return tune.lograndint(low, high) if domain.log else tune.randint(low, high)
    return tune.loguniform(domain.low, domain.high) if domain.log else tune.uniform(domain.low, domain.high)


def _write_best(setup: StudySetup, trial: dict[str, Any]) -> Path:
    best = {key: value for key, value in trial.items() if key in setup.study.space}
    path = setup.order.folder / BEST_FILE
    write_text(path, to_yaml(setup.config(best)))
    return path


def last_line(error: BaseException) -> str:
    """What a failed trial died of; Ray puts the traces of two processes before it."""
    return str(error).strip().rpartition("\n")[2]


def _ended_count(folder: Path) -> int:
    """Trials that have reported so far; Tune writes a line each."""
    return sum(1 for file in folder.glob("*/result.json") if file.stat().st_size)


def _reported(result: tune.Result) -> bool:
    """Whether the trial ended: Ctrl-C leaves one without an error and without a number."""
    return "objective" in (result.metrics or {})


def _trial(result: tune.Result) -> dict[str, Any]:
    values = {_dotted(key): value for key, value in (result.config or {}).items()}
    known = ("objective", "reward", "nfe", "scene_soft", "time_total_s")
    return values | {name: (result.metrics or {}).get(name) for name in known}
