"""`addiffusion metrics` and `addiffusion judge` on folders, with toy scorers and a local server."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from torch_fidelity import FeatureExtractorInceptionV3

from addiffusion.errors import EvaluationError, RunFolderError, WeightsError
from evaluation.metrics.cmmd import cmmd
from launch.comparing.judge_folders import judge_folders, make_contests, to_json
from launch.comparing.metrics_of_folder import measure_folder
from launch.comparing.orders import JudgeOrder, MetricsOrder
from launch.runtime.folder_lock import locked_file
from tests.evaluation.comparison.test_folders import fill
from tests.evaluation.inception_weights import write_inception
from tests.evaluation.judge.judge_server import JudgeServer, brighter, judge_server
from tests.fakes import ToyScoring


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with judge_server() as running:
        yield running


def prompts(tmp_path: Path, count: int) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(f"toy scene {number}" for number in range(count)))
    return path


def test_scores_sets_and_pairs_are_measured_together(tmp_path: Path) -> None:
    images, reference = fill(tmp_path / "a", 9), fill(tmp_path / "b", 9, seed=1)
    order = MetricsOrder(
        images=images,
        metrics=("clip", "scene_soft", "cmmd", "fd_dino", "ssim", "dino_similarity"),
        reference=reference,
        prompts=prompts(tmp_path, 9),
    )
    found = measure_folder(order, ToyScoring())
    assert set(found) == set(order.metrics)
    assert found["clip"]["count"] == 9
    assert found["cmmd"]["value"] > 0
    same = measure_folder(MetricsOrder(images=images, metrics=("cmmd", "ssim"), reference=images), ToyScoring())
    assert same["cmmd"]["value"] == pytest.approx(0, abs=1e-9)
    assert same["ssim"]["value"] == pytest.approx(1)
    assert cmmd(np.eye(4)[:2], np.eye(4)[:2]) == pytest.approx(0)


def test_images_are_counted_as_they_are_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In several requests the figures are those of one."""
    order = MetricsOrder(
        images=fill(tmp_path / "a", 9), metrics=("clip", "cmmd"), reference=fill(tmp_path / "b", 5, seed=1),
        prompts=prompts(tmp_path, 9),
    )  # fmt: skip
    whole = measure_folder(order, ToyScoring())
    monkeypatch.setattr("launch.comparing.metrics_of_folder._AT_ONCE", 4)
    monkeypatch.setattr("launch.runtime.console.SILENCE_S", 0.0)
    stream = io.StringIO()
    assert measure_folder(order, ToyScoring(), console=Console(file=stream)) == whole
    assert "images: 14" in stream.getvalue()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": ("beauty",)}, r"no metric called 'beauty': choose from aesthetic, .* cmmd, .* ssim"),
        ({"metrics": ("fd_dino",)}, "without --reference"),
        ({"metrics": ("fid",)}, "fid can't be computed without --reference FOLDER, images to compare with; give it"),
        ({"metrics": ("clip", "inception_score")}, "inception_score needs at least 20 images, got 3: give 17 more"),
        ({"metrics": ("ssim",)}, "ssim can't be computed without --reference FOLDER, images to compare with"),
        ({"metrics": ("cmmd",)}, "cmmd can't be computed without --reference FOLDER"),
        ({"metrics": ("clip",), "prompts": None}, "Nothing says what the images"),
    ],
)
def test_what_a_metric_lacks_is_said(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    settings: dict[str, object] = {"images": fill(tmp_path / "a", 3), "metrics": ("clip",), "prompts": None}
    with pytest.raises(EvaluationError, match=message):
        measure_folder(MetricsOrder(**(settings | changes)), ToyScoring())


def test_inception_metrics_come_from_the_images_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No scorers are loaded for them; beside scores they come in the order asked for."""
    monkeypatch.setattr(FeatureExtractorInceptionV3, "INPUT_IMAGE_SIZE", 75)
    order = MetricsOrder(
        images=fill(tmp_path / "a", 4), metrics=("kid",), reference=fill(tmp_path / "b", 3, seed=1),
        inception=write_inception(tmp_path / "inception.pth"),
    )  # fmt: skip
    alone = measure_folder(order)
    assert alone["kid"]["count"] == 4
    both = measure_folder(dataclasses.replace(order, metrics=("cmmd", "kid")), ToyScoring())
    assert list(both) == ["cmmd", "kid"]
    assert both["kid"] == alone["kid"]
    with pytest.raises(WeightsError, match=r"missing\.pth can't be read"):
        measure_folder(dataclasses.replace(order, metrics=("clip", "kid"), inception=tmp_path / "missing.pth"))


def test_too_few_images_for_a_frechet_distance_says_how_many(tmp_path: Path) -> None:
    order = MetricsOrder(images=fill(tmp_path / "a", 4), metrics=("fd_dino",), reference=fill(tmp_path / "b", 9))
    with pytest.raises(EvaluationError, match=r"needs at least 7 .*got 4: give 3 more"):
        measure_folder(order, ToyScoring())


def judge_order(server: JudgeServer, tmp_path: Path, **changes: object) -> JudgeOrder:
    dark, light = fill(tmp_path / "dark", 4), fill(tmp_path / "light", 4)
    for file in light.iterdir():
        from PIL import Image  # noqa: PLC0415

        Image.fromarray(np.asarray(Image.open(file)) // 2 + 128).save(file)
    settings: dict[str, object] = {
        "folders": (dark, light), "verdicts": tmp_path / "verdicts.jsonl", "prompts": prompts(tmp_path, 4),
        "base_url": server.base_url, "model": "toy",
    }  # fmt: skip
    return JudgeOrder(**(settings | changes))


def test_the_better_folder_wins_and_a_second_run_asks_nothing(server: JudgeServer, tmp_path: Path) -> None:
    server.rule = brighter
    order = judge_order(server, tmp_path)
    done: list[int] = []
    judgement, standings = judge_folders(order, make_contests(order), done.append)
    assert sum(done) == 4
    assert [one.name for one in standings] == ["light", "dark"]
    assert standings[0].strength == pytest.approx(np.log(4.5 / 0.5), abs=1e-4)
    found = to_json(judgement, standings)
    assert (found["contests"], found["invalid"], found["asked"]) == (4, 0, 8)
    again, _ = judge_folders(order, make_contests(order), done.append)
    assert again.asked_count == 0
    assert len(make_contests(judge_order(server, tmp_path, limit=2))) == 2


def test_one_judge_writes_a_file_of_verdicts(server: JudgeServer, tmp_path: Path) -> None:
    order = judge_order(server, tmp_path)
    with (
        locked_file(order.verdicts),
        pytest.raises(RunFolderError, match=r"verdicts.jsonl is in use by process \d+ on "),
    ):
        judge_folders(order, make_contests(order), lambda count: None)
    assert not server.seen
    judge_folders(order, make_contests(order), lambda count: None)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("verdicts")] == ["verdicts.jsonl"]


def test_folders_that_can_not_be_judged_are_refused(server: JudgeServer, tmp_path: Path) -> None:
    order = judge_order(server, tmp_path)
    with pytest.raises(EvaluationError, match="two folders of images or more"):
        make_contests(replace(order, folders=order.folders[:1]))
    with pytest.raises(EvaluationError, match="different names"):
        make_contests(replace(order, folders=order.folders[:1] * 2))
