"""Studies and single trials; Tune itself is RLlib's neighbour's business."""

from __future__ import annotations

from functools import reduce
from operator import getitem
from pathlib import Path

import pytest
from rich.console import Console

from addiffusion.configuration.files import load_config
from addiffusion.errors import ArchiveError, ConfigError, RolloutError
from launch.tuning.orders import TuneOrder
from launch.tuning.study import Bounds, Objective, Study, as_overrides, load_study
from launch.tuning.trial import run_trial
from launch.tuning.tune import StudySetup, last_line, tune_study
from tests.addiffusion.bank.toy_bank import toy_bank, toy_bank_config

pytestmark = pytest.mark.usefixtures("figures_once")

STUDIES = sorted((Path(__file__).parents[3] / "configs" / "studies").glob("*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_shipped_studies_vary_keys_that_exist(path: Path) -> None:
    study = load_study(path)
    for end in ("low", "high"):
        values = {
            key: getattr(domain, end) if isinstance(domain, Bounds) else domain[0]
            for key, domain in study.space.items()
        }
        tree = load_config((), as_overrides({**study.base, **values})).model_dump(mode="json")
        assert {key: reduce(getitem, key.split("."), tree) for key in values} == values


def test_there_are_a_sweep_and_three_profiles() -> None:
    assert [path.stem for path in STUDIES] == ["balanced", "efficiency_heavy", "learning_rate", "quality_heavy"]


@pytest.mark.parametrize("text", ["trials: 3\n", "space: {ppo.lr: {low: 1.0}}\n", "space: {a: [1]}\ntrails: 2\n"])
def test_a_study_that_can_not_be_used_is_refused_with_its_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"study .*mine\.yaml"):
        load_study(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trials: 100001\nspace: {ppo.lr: {low: 1, high: 2}}\n", "trials can't be 100001"),
        ("objective: {c_nfe: 1.0e7}\nspace: {ppo.lr: {low: 1, high: 2}}\n", r"objective\.c_nfe can't be"),
        ("space: {ppo.lr: {low: 1, high: 1.0e13}}\n", "high can't be"),
        ("space: {ppo.lr: {low: 2, high: 1}}\n", r"space\.ppo\.lr\.bounds can't be .*: low must be below high\.$"),
        ("space: {ppo.lr: {low: 0, high: 1, log: true}}\n", "log needs a low above 0"),
        ("space: {ppo.epochs: {low: 1.5, high: 4, integer: true}}\n", "integer needs whole numbers"),
        ("space: {ppo.epochs: []}\n", "must not be empty"),
    ],
)
def test_a_number_that_no_study_can_have_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_study(path)


def test_values_go_over_base_over_the_command_line(tmp_path: Path) -> None:
    study = Study(space={"ppo.lr": Bounds(low=1e-4, high=1e-2)}, base={"ppo.iterations": 3})
    order = TuneOrder(study=Path("a.yaml"), bank=tmp_path)
    config = StudySetup(study=study, order=order, overrides=["ppo.iterations=9", "ppo.epochs=7"]).config(
        {"ppo.lr": 0.005}
    )
    assert (config.ppo.lr, config.ppo.iterations, config.ppo.epochs) == (0.005, 3, 7)
    assert config.policy.actions == ("continue", "stop")


def test_a_bank_that_is_none_is_refused_before_anything_starts(tmp_path: Path) -> None:
    study = Study(space={"ppo.lr": Bounds(low=1e-4, high=1e-2)})
    order = TuneOrder(study=Path("a.yaml"), out=tmp_path / "study", bank=tmp_path / "none")
    with pytest.raises(ArchiveError, match="none is no trajectory bank"):
        tune_study(StudySetup(study=study, order=order), console=Console(quiet=True))
    assert not (tmp_path / "study").exists()


def test_a_failed_trial_is_told_in_one_line() -> None:
    assert last_line(RolloutError("ray::trial()\n  File ...\nArchiveError: no bank.\n")) == "ArchiveError: no bank."


def test_a_trial_on_a_bank_is_judged_on_trajectories_it_has_not_seen(tmp_path: Path) -> None:
    config = toy_bank_config(
        ppo={"iterations": 2, "batch_size": 8, "minibatch_size": 16},
        warm_start={"clone_epochs": 2, "improve_epochs": 2},
    )
    toy_bank(tmp_path, config, count=12)
    by_reward = run_trial(config, Objective(), bank=tmp_path)
    assert by_reward["objective"] == by_reward["reward"]
    assert by_reward == run_trial(config, Objective(), bank=tmp_path)
    by_scene = run_trial(config, Objective(score="scene_soft", c_nfe=0.01), bank=tmp_path)
    assert by_scene["objective"] == pytest.approx(by_scene["scene_soft"] - 0.01 * by_scene["nfe"])
