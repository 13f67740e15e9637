"""The training loop around toy models: what it leaves behind, resume, Ctrl-C."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from addiffusion.checkpoint_files import latest_checkpoint
from addiffusion.config import Config, SamplerSection
from addiffusion.errors import ConfigError
from addiffusion.policy_files import read_policy
from addiffusion.records import Ticket
from addiffusion.rollouts import Collected, Rollouts
from launch.runtime.components import Components
from launch.training.preflight import Plan
from launch.training.tracking import check_tracking
from launch.training.train import Outcome
from learner.checkpoint import load_checkpoint
from tests.launch.runtime.toy_components import toy_components, toy_config, toy_plan
from tests.launch.training.toy_runs import final_weights, interrupted_components, train

pytestmark = pytest.mark.usefixtures("figures_once")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome, str]:
    path = tmp_path_factory.mktemp("runs") / "run"
    return path, *train(toy_plan(path, toy_config(run={"film_strips": 2})))


def test_the_end_says_what_training_pairs_and_new_prompts_earn(finished: tuple[Path, Outcome, str]) -> None:
    path, _, said = finished
    result = json.loads((path / "result.json").read_text())
    assert f"{result['return_training']:+.2f} on training pairs, {result['return_held_out']:+.2f} on held-out" in said
    assert result["return_training"] != result["return_held_out"]
    assert result["generalization_gap_ci"] is None  # the toy has three held-out prompts
    assert "note: each of" not in said


def test_a_run_leaves_everything_behind(finished: tuple[Path, Outcome, str]) -> None:
    path, outcome, _ = finished
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [1, 2, 3]
    assert {"return", "term_quality", "nfe", "entropy", "approx_kl", "stage_network_s", "eta_s"} <= rows[0].keys()
    assert rows[-1]["eta_s"] == 0
    assert sorted(file.name for file in (path / "plots").iterdir()) == [
        "action_mix.png", "film_strips.png", "learning_curves.png", "stopping_times.png",
    ]  # fmt: skip
    assert (path / "checkpoints" / "best").resolve().parent == (path / "checkpoints").resolve()
    assert json.loads((path / "result.json").read_text()) == outcome.result
    assert list((path / "tensorboard").iterdir())


def test_the_best_checkpoint_is_found_with_and_without_links(
    finished: tuple[Path, Outcome, str], tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finished[0], tmp_path / "run", symlinks=True))
    best = run / "checkpoints" / "best"
    expected = read_policy(str(best)).weights
    name = best.readlink().name
    best.unlink()
    best.write_text(name + "\n")
    found = read_policy(str(best)).weights
    assert all((found[key] == expected[key]).all() for key in expected)


def test_the_result_compares_with_fixed_samplers(finished: tuple[Path, Outcome, str]) -> None:
    _, outcome, text = finished
    result = outcome.result
    assert result is not None
    assert {"mean_nfe", "scene", "scene_full", "clip", "clip_full", "seconds", "actions", "episodes_dropped",
            "scene_ddim4", "scene_difference", "clip_difference", "nfe_tier_spearman"} <= result.keys()  # fmt: skip
    assert sum(result["actions"].values()) == pytest.approx(1)
    assert result["episodes_dropped"] == 0
    assert "always continue (8)" in text
    assert "DDIM-4" in text
    assert "policy minus always continue (8), 95 % intervals: scene" in " ".join(text.split())


def test_ctrl_c_saves_and_resume_ends_in_the_same_weights(finished: tuple[Path, Outcome, str], tmp_path: Path) -> None:
    path, config = tmp_path / "run", toy_config()
    outcome, text = train(
        toy_plan(path, config), interrupted_components(5)
    )  # three batches of references, then iterations
    assert outcome.interrupted
    assert "resume=" in text
    checkpoint = load_checkpoint(latest_checkpoint(path))
    assert checkpoint.iteration == 2

    plan = toy_plan(path, config)
    resumed = Plan(
        config=config,
        path=path,
        train_prompts=plan.train_prompts,
        test_prompts=plan.test_prompts,
        checkpoint=checkpoint,
    )
    outcome, text = train(resumed)
    assert "full-length images" not in text  # the references were kept
    assert outcome.result is not None
    assert outcome.result["iterations"] == 3
    expected, found = final_weights(finished[0]), final_weights(path)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


class Counting:
    """Counts full-length images on their way to ``rollouts``."""

    def __init__(self, rollouts: Rollouts) -> None:
        self.rollouts, self.forced_count = rollouts, 0

    def set_weights(self, weights: object, version: int) -> None:
        self.rollouts.set_weights(weights, version)

    def collect(self, tickets: Sequence[Ticket], *, sampler: SamplerSection | None = None) -> Collected:
        self.forced_count += sum(ticket.forced is not None and sampler is None for ticket in tickets)
        return self.rollouts.collect(tickets, sampler=sampler)

    def advance(self, tickets: Sequence[Ticket]) -> Collected:
        return self.rollouts.advance(tickets)


@pytest.mark.parametrize(("calls", "kept"), [(1, 2), (2, 4), (3, 6)])  # of six, two at a time
def test_ctrl_c_during_the_references_keeps_them_and_the_command_it_names_goes_on(
    finished: tuple[Path, Outcome, str], tmp_path: Path, calls: int, kept: int
) -> None:
    path = tmp_path / "run"
    outcome, text = train(toy_plan(path, toy_config()), interrupted_components(calls))
    assert outcome.interrupted
    assert "finishing these full-length images, then keeping them (Ctrl-C again to leave at once)" in text
    assert f"{kept} of 6 full-length images of the training prompts are kept" in text
    assert f"go on with `addiffusion train resume={path}`" in text.replace("\n", "")

    counts: list[Counting] = []

    @contextmanager
    def counting(config: Config) -> Iterator[Components]:
        with toy_components(config) as toys:
            counts.append(Counting(toys.rollouts))
            yield replace(toys, rollouts=counts[0])

    outcome, _ = train(replace(toy_plan(path, toy_config()), begun=True), counting)
    assert outcome.result is not None
    assert counts[0].forced_count == 6 - kept  # contestants of the comparison at the end name their sampler
    expected, found = final_weights(finished[0]), final_weights(path)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_iterations_before_the_first_checkpoint_are_forgotten_by_a_run_that_begins_again(
    finished: tuple[Path, Outcome, str], tmp_path: Path
) -> None:
    path = tmp_path / "run"
    train(toy_plan(path, toy_config()), interrupted_components(5))
    shutil.rmtree(path / "checkpoints")
    assert (path / "metrics.jsonl").read_text()
    train(replace(toy_plan(path, toy_config()), begun=True))
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [1, 2, 3]
    expected, found = final_weights(finished[0]), final_weights(path)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


WANDB = """
import json, pathlib
class Run:
    def __init__(self, settings):
        self.file = pathlib.Path(settings["dir"], "sent.jsonl").open("a")
        self.write({name: settings[name] for name in ("project", "id", "resume", "mode")})
    def write(self, what):
        self.file.write(json.dumps(what) + "\\n")
    def log(self, numbers, step):
        self.write({"step": step, "nfe": numbers["nfe"]})
    def finish(self, exit_code):
        self.write({"exit_code": exit_code})
        self.file.close()
def init(**settings):
    return Run(settings)
"""


def test_metrics_go_to_weights_and_biases_when_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb.py").write_text(WANDB)
    monkeypatch.syspath_prepend(tmp_path)
    plan = toy_plan(tmp_path / "run", toy_config(tracking={"wandb": "offline"}))
    try:
        train(plan)
    finally:
        sys.modules.pop("wandb", None)
    sent = [json.loads(line) for line in (plan.path / "sent.jsonl").read_text().splitlines()]
    assert sent[0] == {"project": "addiffusion", "id": "run", "resume": "allow", "mode": "offline"}
    assert [line["step"] for line in sent[1:-1]] == [1, 2, 3]
    assert sent[-1] == {"exit_code": 0}


def test_tracking_without_its_package_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tracking\.wandb=online needs the package wandb"):
        check_tracking(toy_config(tracking={"wandb": "online"}))
