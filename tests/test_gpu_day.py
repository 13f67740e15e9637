"""scripts/gpu_day.sh: every part runs on a CPU at its smallest, and a part that fails, hangs or dies harms no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from addiffusion.errors import ConfigError
from launch.runtime.console import UNSEEN
from scripts.gpu_day.measuring import Size, measure
from scripts.gpu_day.page import BEGIN, END, put_tables
from scripts.gpu_day.parts import PARTS
from tests.gpu_parts import dies, fails, hangs, works

pytestmark = pytest.mark.usefixtures("short_bench")
ON_A_CPU = [name for name in PARTS if not name.endswith(("_compile", "_graphs")) and "sdxl" not in name]
"""Compiling takes a minute each, CUDA graphs want a GPU, and the smallest SDXL is the smallest SD 1.5."""


@pytest.fixture(scope="module")
def size(tmp_path_factory: pytest.TempPathFactory) -> Size:
    return Size(device="cpu", tiny=True, out=tmp_path_factory.mktemp("gpu_day"))


@pytest.fixture(scope="module")
def figures(size: Size) -> dict[str, Any]:
    measured: dict[str, Any] = {name: PARTS[name][0](size) | {"seconds": 1.0} for name in ON_A_CPU}
    return measured | {"machine": {"device": "CPU", "torch": "2"}}


def test_a_cpu_agrees_with_itself_bitwise_wherever_an_image_is_drawn(figures: dict[str, Any]) -> None:
    assert figures["agreement"]["bitwise"]
    assert {figures["determinism"]["by_dtype"]["float32"][key] for key in ("again", "other_slot_and_company")} == {0.0}
    assert figures["determinism"]["by_dtype"]["float32"]["scale"] > 0


def test_its_figures_are_those_of_the_benchmarks(figures: dict[str, Any]) -> None:
    assert figures["engine_sd15_eager"]["engine_over_bare"] > 0
    assert figures["observation"]["latent"]["episodes"] == 2
    assert figures["scorers"]["images_per_s"]["2"] > 0
    assert figures["denoiser"]["steps"] == 2


def test_the_tables_take_their_place_on_the_page(tmp_path: Path, figures: dict[str, Any]) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    put_tables(page, {**figures, "engine_sdxl_graphs": {"error": "cut after 100 s"}})
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"\n{END}\nafter\n")
    assert "old" not in text
    assert "| SDXL shape, 1024 px, CUDA graphs | cut after 100 s | - |" in text
    assert "| SD 1.5 shape, 512 px, torch.compile | not measured | - |" in text
    assert "embedded denoiser, 2 steps in 1 s" in text


def test_a_page_without_a_place_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing")
    with pytest.raises(ConfigError, match="has no place for the tables: put the lines"):
        put_tables(page, {})


def test_a_part_that_fails_dies_or_hangs_leaves_the_others(size: Size) -> None:
    parts = {"works": (works, 60), "fails": (fails, 60), "dies": (dies, 60), "hangs": (hangs, 1)}
    figures = measure(parts, [*parts], size, seconds=60, console=UNSEEN)
    assert figures["works"]["figure"] == 1
    assert {name: figures[name].get("error") for name in ("fails", "dies", "hangs")} == {
        "fails": "ValueError: no such kernel",
        "dies": "its process ended with exit code 7",
        "hangs": "cut after 1 s",
    }
    assert json.loads((size.out / "gpu_day.json").read_text()) == figures

    parts["fails"] = works, 60
    parts["works"] = fails, 60
    again = measure(parts, ["works", "fails", "dies"], size, seconds=0.0, console=UNSEEN)
    assert again["works"]["figure"] == 1  # measured before
    assert again["fails"] == {"error": "not begun: no time was left"}
