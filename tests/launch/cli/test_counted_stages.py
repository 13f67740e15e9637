"""Commands that used to say how long they have worked say how much is done, the rate and what is left."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from addiffusion.embedded.world.data import scene_batch
from launch.bench.collect import bench_collect
from launch.bench.engine import bench_engine
from launch.bench.orders import EngineOrder
from launch.bench.setup import CollectSetup
from launch.comparing.gates import check_gate
from launch.comparing.orders import GateOrder, ReportOrder
from launch.comparing.report import write_report
from launch.comparing.score import score_files
from launch.runtime import console as module
from launch.runtime.components import observation_width, unpaid
from launch.runtime.console import UNSEEN
from launch.training.train import run
from tests.fakes import ToyBackbone, ToyScoring, make_prompt
from tests.launch.conftest import Ended
from tests.launch.runtime.toy_components import toy_components, toy_config, toy_plan

pytestmark = pytest.mark.usefixtures("figures_once", "short_bench")


@pytest.fixture
def page() -> Console:
    return Console(file=io.StringIO(), width=200)


def lines(page: Console) -> list[str]:
    assert isinstance(page.file, io.StringIO)
    return page.file.getvalue().splitlines()


def test_bench_engine(ended: Ended, page: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_S", 0.02)
    order = EngineOrder(
        backbone="embedded", device="cpu", threads=1, dtype="float32", compile="off", slots=1, guidance_scale=1.0,
        seconds=0.02, rounds=2, set_images=1, ticks=7,
    )  # fmt: skip
    bench_engine(order, page)
    assert ended["turns"] == (12, 12)
    assert ended["sets"] == (4, 4)
    assert ended["ticks"] == (14, 14)
    said = [line for line in lines(page) if line.startswith("turns (round 2: ")]
    assert [line for line in said if " of 12, " in line and line.endswith(" left")]


def test_bench_collect(ended: Ended, page: Console) -> None:
    config, scoring = unpaid(toy_config(reward={"preset": "phase1"})), ToyScoring()
    prompts = tuple(make_prompt(number) for number in range(3))
    setup = CollectSetup(
        config=config,
        prompts=prompts,
        backbone=ToyBackbone(),
        scoring=scoring,
        width=observation_width(config, scoring),
    )
    bench_collect(setup, page)
    assert ended["measurements"] == (12, 12)


def test_score(ended: Ended, page: Console, tmp_path: Path) -> None:
    scenes = scene_batch(3, 0, 3)
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, pixels in zip(paths, scenes.images, strict=True):
        Image.fromarray(pixels).save(path)
    at_once = score_files(paths, scenes.captions[0], files=[], overrides=[])
    alone = score_files(paths, scenes.captions[0], files=[], overrides=["scorers.batch_images=1"], console=page)
    assert ended["images"] == (3, 3)
    for left, right in zip(at_once.files, alone.files, strict=True):
        assert left.scores == pytest.approx(right.scores, abs=1e-4)


def test_report(ended: Ended, page: Console, tmp_path: Path) -> None:
    config = toy_config(ppo={"iterations": 1})
    run(toy_plan(tmp_path / "run", config), console=UNSEEN, roles=toy_components)
    write_report(ReportOrder(folder=tmp_path / "run", films=3), roles=toy_components, console=page)
    assert ended["film strips"] == (3, 3)  # in two parts: there are two slots


def test_gate_g0(ended: Ended, page: Console) -> None:
    check_gate(GateOrder(name="g0"), overrides=["rollout.slots=1"], console=page)
    assert ended["measurements of memory"] == (7, 7)
