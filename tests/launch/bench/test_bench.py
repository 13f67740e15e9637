"""The benchmarks at a size of seconds: what they measure is for their users, that they measure is for us."""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from addiffusion.backbones.random_weights import random_backbone
from addiffusion.config import BackboneSection, Config
from addiffusion.errors import ConfigError, UsageError
from launch.bench.collect import bench_collect
from launch.bench.collect import table_of as collect_table
from launch.bench.contestants import LONGEST, BareNetwork, BenchSetup, Continuous, LockStep, TimedContestant, ratio
from launch.bench.engine import BATCHES, measure, rising_batches, table_of
from launch.bench.finish import bench_finish, check_stops, choice, choice_text, combinations, grid
from launch.bench.finish import table_of as finish_table
from launch.bench.orders import EngineOrder, FinishOrder
from launch.bench.sets import AIMS
from launch.bench.setup import CollectSetup
from launch.bench.startup import NEEDED, commands_of, compare, to_json
from launch.bench.startup import table_of as startup_table
from launch.cli.app import app
from launch.runtime.components import observation_width, unpaid
from tests.fakes import ToyBackbone, ToyScoring, make_prompt
from tests.launch.runtime.toy_components import toy_components, toy_config

pytestmark = pytest.mark.usefixtures("short_bench")
TINY: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
    "cross_attention_dim": 16,
}
CONTESTANTS = ("bare", "bare_same_batch", "engine", "lockstep", "pipeline", "sequential")
TINY_XL: dict[str, Any] = {
    **TINY,
    "cross_attention_dim": 32,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 16,
    "transformer_layers_per_block": 1,
}


def tiny_backbone(kind: Any = "sd15-random", dtype: Any = "float32") -> Any:
    section = BackboneSection(kind="stable_diffusion", path=kind, device="cpu", dtype=dtype)
    return random_backbone(kind, section, **(TINY if kind == "sd15-random" else TINY_XL))


@pytest.mark.parametrize(
    ("kind", "guidance", "dtype"),
    [("sd15-random", 3.5, "float32"), ("sd15-random", 1.0, "bfloat16"), ("sdxl-random", 3.5, "bfloat16")],
)
def test_the_engine_is_measured_against_all_contestants(kind: str, guidance: float, dtype: str) -> None:
    order = EngineOrder(
        backbone=kind,
        device="cpu",
        threads=1,
        dtype=dtype,
        compile="off",
        slots=2,
        guidance_scale=guidance,
        seconds=0.01,
        rounds=1,
        set_images=2,
        ticks=20,
    )
    result = measure(tiny_backbone(kind, dtype), order)
    for stretch in AIMS:
        ours, theirs = (result[f"{name}_{stretch}_s"] for name in ("policy", "static"))
        assert 0 < ours == pytest.approx(theirs * result[f"{stretch}_over_static"])
    rates = {name for name in result if name.endswith("_nfe_s")}
    assert rates == {f"{name}_nfe_s" for name in CONTESTANTS}
    assert all(result[name] > 0 for name in rates)
    assert result["engine_over_bare"] == pytest.approx(result["engine_nfe_s"] / result["bare_nfe_s"])
    assert 0 < result["overhead_without_refines_frac"] < 1
    assert 0 < result["overhead_frac"] < 1
    assert 0 < result["attention_frac"] < 1 - result["overhead_frac"]
    assert json.loads(json.dumps(result)) == result
    assert len(table_of(result).rows) == 12


def test_the_bench_finds_the_slots_at_which_the_network_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launch.bench.engine.BATCHES", BATCHES[:4])  # larger ones only take longer
    order = EngineOrder(
        backbone="sd15-random", device="cpu", threads=1, dtype="float32", compile="off", slots=None, guidance_scale=1.0,
        seconds=0.01, rounds=1, ticks=5, set_images=0,
    )  # fmt: skip
    result = measure(tiny_backbone(), order)
    assert result["slots_found"]
    assert result["slots"] == result["bare_best_batch"]
    assert f"{result['slots']} slots (where the network is fastest)" in str(table_of(result).title)


@pytest.mark.parametrize(
    ("rates", "tried"),
    [
        ({1: 10, 2: 19, 4: 35, 8: 60, 16: 90, 32: 110, 64: 109, 128: 111}, 128),  # 1 % more is no more
        ({1: 10, 2: 9, 4: 19, 8: 18, 16: 17}, 16),  # one slow batch on the way ends nothing
        ({1: 10, 2: 10, 4: 10}, 4),
        ({1: 10, 2: 20, 4: 40, 8: 0}, 8),  # 8 do not fit into memory
    ],
)
def test_larger_batches_are_tried_as_long_as_they_are_faster(rates: dict[int, float], tried: int) -> None:
    assert rising_batches(lambda batch: rates[batch]) == [batch for batch in BATCHES if batch <= tried]


def test_passes_lead_on_what_was_promised() -> None:
    backbone = tiny_backbone()
    (prompt,) = backbone.encode_prompts(["a"])
    setup = BenchSetup(backbone=backbone, prompt=prompt, guidance_scale=1.0, slots=2)
    assert LockStep(setup, 1).nfe_per_pass == 1.0
    # Of two images of U[5, 50] passes the longer one has 35.2 on average, both together 55.
    assert LockStep(setup, 2).nfe_per_pass == pytest.approx(55 / 35.16, abs=0.02)
    contestant = Continuous(setup)
    steps = contestant.work()
    assert {next(steps) for _ in range(30)} == {1}
    assert all(0 < left <= LONGEST - 3 for left in contestant._left)


def test_ratios_are_medians_of_rounds() -> None:
    backbone = tiny_backbone()
    (prompt,) = backbone.encode_prompts(["a"])
    setup = BenchSetup(backbone=backbone, prompt=prompt, guidance_scale=1.0, slots=2)
    one, other = (TimedContestant(BareNetwork(setup, 1), setup) for _ in range(2))
    one.rates, other.rates = [10.0, 1.0, 9.0], [10.0, 2.0, 10.0]
    assert ratio(one, other) == pytest.approx(0.9)


@pytest.mark.parametrize("sees", ["clip", "latent"])
def test_the_loop_is_measured_against_its_parts(sees: str) -> None:
    config = toy_config(rollout={"slots": 4}, reward={"preset": "phase1"})
    config = unpaid(config.model_copy(update={"observation": config.observation.model_copy(update={"kind": sees})}))
    scoring = ToyScoring()
    width = observation_width(config, scoring) if sees == "clip" else 8 + 4 + 8 + 4 + 4
    prompts = tuple(make_prompt(n) for n in range(6))
    setup = CollectSetup(config=config, prompts=prompts, backbone=ToyBackbone(), scoring=scoring, width=width)
    result = bench_collect(setup)
    assert (result["episodes"], result["failed"]) == (6, 0)
    assert result["compute_s"] == pytest.approx(
        sum(result[f"compute_{name}_s"] for name in ("network", "decode", "score"))
    )
    assert result["loop_over_compute"] == pytest.approx(result["compute_s"] / result["wall_s"])
    assert json.loads(json.dumps(result)) == result
    assert result["observe_over_network"] > 0
    assert len(collect_table(result).rows) == 9


def test_finishes_are_compared_on_the_same_images() -> None:
    config = unpaid(toy_config())
    order = FinishOrder(passes=(0, 2, 9), stops=(2, 6))
    check_stops(order, config)
    told: list[int] = []
    with toy_components(config) as components:
        rows = bench_finish(order, [make_prompt(n) for n in range(3)], config, components, lambda: told.append(1))
    assert len(rows) == len(told) == combinations(order, config)
    nfe = {(row["stop_at"], row["finish"], row["passes"]): row["nfe"] for row in rows[1:]}
    assert rows[0]["nfe"] == 8
    assert nfe == {
        (2, "ddim", 0): 3,
        (2, "ddim", 2): 5,
        (2, "dpm++2m", 2): 5,
        (2, "ddim", 5): 8,
        (2, "dpm++2m", 5): 8,
        (6, "ddim", 0): 7,
        (6, "ddim", 1): 8,
        (6, "dpm++2m", 1): 8,
    }
    assert all(-1 <= row["clip"] <= 1 for row in rows)
    assert len(finish_table(rows).rows) == len(rows)


def _row(finish: str, passes: int, nfe: float, scene: float) -> dict[str, Any]:
    return {"finish": finish, "passes": passes, "nfe": nfe, "scene_soft": scene}


def test_the_choice_is_the_best_finish_at_equal_nfe() -> None:
    rows = [{"finish": None, "nfe": 50.0, "scene_soft": 1.0}]
    rows += [_row("ddim", 2, 8.0, 0.5), _row("ddim", 2, 18.0, 0.7), _row("dpm++2m", 2, 8.0, 0.6)]
    rows += [_row("dpm++2m", 2, 18.0, 0.7), _row("ddim", 6, 12.0, 0.7), _row("ddim", 6, 22.0, 0.8)]
    chosen = choice(rows)
    assert (chosen["solver"], chosen["passes"]) == ("ddim", 6)
    assert (chosen["nfe_from"], chosen["nfe_to"]) == (12.0, 18.0)
    assert chosen["mean_scene"] == pytest.approx({"ddim 2": 0.64, "dpm++2m 2": 0.67, "ddim 6": 0.73})
    assert "sampler.finish_solver=ddim sampler.finish_steps=6" in choice_text(chosen)
    assert choice(rows[:2]) == {}
    assert choice_text({}).startswith("No choice")


def test_a_stop_outside_the_schedule_is_refused() -> None:
    with pytest.raises(ConfigError, match="--stop-at 50 is not a step of this schedule: choose 1 to 49"):
        check_stops(FinishOrder(stops=(50,)), Config())


def test_the_grid_leaves_out_what_would_be_the_same_twice() -> None:
    finishes = grid(FinishOrder(passes=(0, 4), stops=(3, 48)), Config())
    assert [(f.stop_at, f.passes, f.solver) for f in finishes] == [
        (3, 0, "ddim"),
        (3, 4, "ddim"),
        (3, 4, "dpm++2m"),
        (48, 0, "ddim"),
        (48, 1, "ddim"),
        (48, 1, "dpm++2m"),
    ]


SMALL = ("sampler.num_steps=4", "sampler.warmup_steps=1", "rollout.slots=2", "sampler.finish_steps=1")
QUICK = shlex.split("--slots 1 --seconds 0.01 --rounds 1 --guidance 1 --set-images 1 --ticks 5")


@pytest.mark.parametrize(
    ("arguments", "key", "table"),
    [
        (("finish", *SMALL, "--count", "2", "-m", "1", "--stop-at", "1"), "rows", True),
        (("collect", *SMALL, "--count", "2", "--json"), "loop_over_compute", False),
        (("engine", *QUICK, "--json"), "engine_over_bare", False),
    ],
)
def test_commands_end_with_one_json_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], key: str, table: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["bench", *arguments], catch_exceptions=False)
    lines = result.stdout.splitlines()
    assert json.loads(lines[-1])[key]
    assert (len(lines) > 1) == table
    assert list(tmp_path.iterdir()) == []


def test_rows_of_a_finish_say_what_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["bench", "finish", *SMALL, "--count", "1", "-m", "1", "--stop-at", "1", "--json"]
    rows = json.loads(CliRunner().invoke(app, arguments, catch_exceptions=False).stdout)["rows"]
    assert [row["finish"] for row in rows] == [None, "ddim", "dpm++2m"]
    assert [row["nfe"] for row in rows] == [4, 3, 3]
    assert all(0 <= row["scene_soft"] <= 1 for row in rows)


def test_a_command_is_measured_against_bare_imports() -> None:
    shown = io.StringIO()
    console = Console(file=shown)
    commands = {"config": ("config",), "one key": ("config", "run.seed=1")}
    rows = compare(commands, dict.fromkeys(commands, ("pydantic", "typer", "yaml")), 1, console)
    row = rows["config"]
    assert rows["one key"].bare_s == row.bare_s  # of one process, for what both need is the same
    assert 0 < row.bare_s < row.command_s
    assert row.over_bare.median == pytest.approx(row.command_s / row.bare_s)
    assert to_json(rows)["config"]["over_bare"]["median"] == row.over_bare.median
    console.print(startup_table(rows))
    assert f"{row.over_bare.median:.2f}" in shown.getvalue()


def test_start_up_is_told_apart_from_drawing(tmp_path: Path) -> None:
    """Of the two commands that draw, one takes 50 passes and one takes 2."""
    commands = commands_of(str(tmp_path / "image.png"))
    assert {words[0] for words in commands.values()} == NEEDED.keys()
    for name, passes in {"sample": 50, "sample, 2 steps": 2}.items():
        drawn = CliRunner().invoke(app, commands[name], catch_exceptions=False)
        assert drawn.stdout.splitlines()[-2].startswith(f"{passes} NFE"), drawn.output
    assert CliRunner().invoke(app, commands["score"]).exit_code == 0


def test_a_command_that_fails_is_no_measurement() -> None:
    with pytest.raises(UsageError, match=r"failed .*unknown key nothing"):
        compare({"config": ("config", "nothing=1")}, {"config": ("typer",)}, 1, Console(file=io.StringIO()))
