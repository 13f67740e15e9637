"""A study's folder knows which study it holds."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from addiffusion.config import Config
from addiffusion.errors import RunFolderError
from launch.tuning.orders import TuneOrder
from launch.tuning.record import STUDY_FILE, keep_study, study_record
from launch.tuning.study import Bounds, Study
from launch.tuning.tune import StudySetup, Trainable

STUDY = Study(trials=2, space={"ppo.lr": Bounds(low=1e-4, high=1e-2, log=True), "ppo.epochs": [1, 2]})


def kept(folder: Path, study: Study = STUDY, config: Config | None = None, bank: Path | None = None) -> None:
    keep_study(folder, study_record(study, config or Config(), bank))


def test_the_same_study_goes_on_in_its_folder(tmp_path: Path) -> None:
    kept(tmp_path / "study", bank=tmp_path)
    before = (tmp_path / "study" / STUDY_FILE).read_bytes()
    kept(tmp_path / "study", bank=tmp_path)
    assert (tmp_path / "study" / STUDY_FILE).read_bytes() == before


def test_where_trials_work_may_change(tmp_path: Path) -> None:
    kept(tmp_path)
    config = Config()
    kept(tmp_path, config=config.model_copy(update={"cluster": config.cluster.model_copy(update={"mode": "serial"})}))


@pytest.mark.parametrize(
    ("study", "config", "bank", "words"),
    [
        ({"trials": 4}, {}, None, r"has trials=2, this one 4: .* --out"),
        ({"space": {**STUDY.space, "ppo.epochs": [1, 2, 3]}}, {}, None, r"space\.ppo\.epochs=\[1, 2\]"),
        ({"space": {"ppo.epochs": [1, 2]}}, {}, None, r"space\.ppo\.lr"),
        ({"base": {"ppo.gae_lambda": 0.9}}, {}, None, r"ppo\.gae_lambda=None, this one 0\.9"),
        ({}, {"resume": Path("elsewhere")}, None, r"has resume=None, this one 'elsewhere'"),
        ({}, {}, Path("another"), r"bank=None"),
    ],
)
def test_another_study_is_refused_by_name(
    tmp_path: Path, study: dict[str, object], config: dict[str, object], bank: Path | None, words: str
) -> None:
    kept(tmp_path)
    before = (tmp_path / STUDY_FILE).read_bytes()
    with pytest.raises(RunFolderError, match=words):
        kept(tmp_path, STUDY.model_copy(update=study), Config().model_copy(update=config), bank)
    assert (tmp_path / STUDY_FILE).read_bytes() == before


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / STUDY_FILE).write_text("{ half")
    with pytest.raises(RunFolderError, match="damaged"):
        kept(tmp_path)


def test_a_folder_that_takes_no_study_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="can't hold a study"):
        kept(tmp_path / "file" / "study")


def test_a_trial_reads_relative_paths_where_they_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Tune starts it in a folder of its own: file, override and bank all lie in the driver's."""
    driver, worker = tmp_path / "driver", tmp_path / "worker"
    for folder in (driver, worker):
        folder.mkdir()
    (driver / "c.yaml").write_text("ppo: {epochs: 3}\n")
    monkeypatch.chdir(driver)
    order = TuneOrder(study=Path("s.yaml"), bank=Path("bank"))
    setup = StudySetup(study=STUDY, order=order, files=[Path("c.yaml")], overrides=["run.dir=r"])
    sent = pickle.dumps(Trainable(setup))
    monkeypatch.chdir(worker)
    with pytest.raises(Exception, match=r"^bank is no trajectory bank") as refused:
        pickle.loads(sent).trained({"ppo:lr": 1e-3})
    assert "c.yaml" not in str(refused.value)
    assert Path.cwd() == driver
