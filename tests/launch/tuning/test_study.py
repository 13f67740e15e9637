"""Whole studies: Ray Tune and Optuna over a bank of the toy world."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from addiffusion.config import Config
from addiffusion.configuration.files import load_resolved
from addiffusion.configuration.text import to_yaml
from launch.tuning import tune
from launch.tuning.orders import TuneOrder
from launch.tuning.study import Bounds, Study
from tests.addiffusion.bank.toy_bank import toy_bank, toy_bank_config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]
QUIET = Console(quiet=True)
STUDY = Study(trials=2, space={"ppo.lr": Bounds(low=1e-4, high=1e-2, log=True)})


@pytest.fixture(autouse=True)
def ray_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' Ray stays up between studies."""

    @contextmanager
    def running(_: Config) -> Iterator[None]:
        yield

    monkeypatch.setattr(tune, "ray_running", running)


@pytest.fixture
def setup(tmp_path: Path) -> tune.StudySetup:
    config = toy_bank_config(
        ppo={"iterations": 1, "batch_size": 4, "minibatch_size": 16},
        warm_start={"clone_epochs": 1, "improve_epochs": 1},
    )
    toy_bank(tmp_path / "bank", config, count=8)
    file = tmp_path / "toy.yaml"
    file.write_text(to_yaml(config))
    order = TuneOrder(study=file, out=tmp_path / "study", bank=tmp_path / "bank")
    return tune.StudySetup(study=STUDY, order=order, files=[file])


def seconds(tuned: tune.Tuned) -> set[float]:
    return {trial["time_total_s"] for trial in tuned.trials}


def values(tuned: tune.Tuned) -> set[float]:
    return {trial["ppo.lr"] for trial in tuned.trials}


def test_a_study_writes_its_best_configuration_and_is_not_run_twice(setup: tune.StudySetup) -> None:
    tuned = tune.tune_study(setup, console=QUIET)
    assert (len(tuned.trials), tuned.failed_count, tuned.left_count) == (2, 0, 0)
    best, other = tuned.trials
    assert best["objective"] >= other["objective"]
    assert tuned.best_file is not None
    assert load_resolved(tuned.best_file).ppo.lr == pytest.approx(best["ppo.lr"])
    assert "ppo.lr" in str(tune.table(tuned, setup.study).columns[0].header)
    again = tune.tune_study(setup, console=QUIET)
    assert seconds(again) == seconds(tuned)


def test_an_interrupted_study_says_what_is_left_and_goes_on(
    setup: tune.StudySetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit_then_forget(self: Any) -> Any:
        """What Tune returns after Ctrl-C: a trial with neither an error nor a number."""
        results = fit(self)
        for result in list(results)[1:]:
            result.metrics.clear()
        return results

    fit = tune.tune.Tuner.fit
    with monkeypatch.context() as patched:
        patched.setattr(tune.tune.Tuner, "fit", fit_then_forget)
        cut = tune.tune_study(setup, console=QUIET)
    assert (len(cut.trials), cut.left_count) == (1, 1)
    whole = tune.tune_study(setup, console=QUIET)
    assert (len(whole.trials), whole.left_count) == (2, 0)
    assert values(cut) < values(whole)
