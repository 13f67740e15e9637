"""`addiffusion report` on a run of toys: finished, just begun, beside a comparison, and on what is neither."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from addiffusion.errors import RunFolderError
from launch.comparing.orders import ReportOrder
from launch.comparing.report import write_report
from launch.training.train import run
from tests.launch.runtime.toy_components import toy_components, toy_config, toy_plan

pytestmark = pytest.mark.usefixtures("figures_once")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    run(toy_plan(path, toy_config(ppo={"iterations": 1})), console=Console(file=io.StringIO()), roles=toy_components)
    return path


def test_a_finished_run_shows_its_course_and_what_its_policy_draws(finished: Path) -> None:
    page = write_report(ReportOrder(folder=finished, films=3), roles=toy_components).read_text()
    assert "finished after 1 of 1 iterations" in page
    assert 'id="chart-reward"' in page
    assert page.count('<article class="strip"') == 3
    assert "addiffusion evaluate" in page


def test_a_run_without_a_checkpoint_says_what_is_missing(finished: Path, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(finished / "config.yaml", begun)
    page = write_report(ReportOrder(folder=begun), roles=toy_components).read_text()
    assert "running or interrupted: 0 of 1 iterations" in page
    assert "No film strips yet: There is no checkpoint" in page


def test_what_is_neither_run_nor_comparison_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is no run folder"):
        write_report(ReportOrder(folder=tmp_path), roles=toy_components)
    with pytest.raises(RunFolderError, match="is no comparison: make one"):
        write_report(ReportOrder(folder=finished, comparison=tmp_path), roles=toy_components)
