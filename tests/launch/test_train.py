"""The training loop around toy models: what it leaves behind, resume, Ctrl-C."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from rich.console import Console

from addiffusion.config import Config, SamplerSection
from addiffusion.errors import RolloutError
from addiffusion.records import Ticket
from addiffusion.rollouts import Collected, Rollouts
from launch.crew import Crew
from launch.preflight import Plan
from launch.train import Outcome, run
from learner.checkpoint import latest_checkpoint, load_checkpoint
from tests.fakes import UNSCORABLE, make_prompt
from tests.launch.toy_crew import toy_config, toy_crew, toy_plan


def train(plan: Plan, roles: object = toy_crew) -> tuple[Outcome, str]:
    stream = io.StringIO()
    outcome = run(plan, console=Console(file=stream, width=130), roles=roles)  # pyright: ignore[reportArgumentType]
    return outcome, stream.getvalue()


def final_weights(path: Path) -> dict[str, torch.Tensor]:
    checkpoint = load_checkpoint(latest_checkpoint(path))
    assert checkpoint.iteration == 3
    return checkpoint.learner.policy


class SignalAfter:
    """Rollouts that send this process SIGINT during their ``count``-th call."""

    def __init__(self, rollouts: Rollouts, count: int) -> None:
        self.rollouts = rollouts
        self.left = count

    def set_weights(self, weights: object, version: int) -> None:
        self.rollouts.set_weights(weights, version)

    def collect(self, tickets: Sequence[Ticket], *, sampler: SamplerSection | None = None) -> Collected:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return self.rollouts.collect(tickets, sampler=sampler)


def interrupted_crew(count: int) -> object:
    @contextmanager
    def crew(config: Config) -> Iterator[Crew]:
        with toy_crew(config) as toys:
            yield Crew(rollouts=SignalAfter(toys.rollouts, count), scoring=toys.scoring, learner=toys.learner)

    return crew


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome, str]:
    path = tmp_path_factory.mktemp("runs") / "run"
    return path, *train(toy_plan(path, toy_config()))


def test_a_run_leaves_everything_behind(finished: tuple[Path, Outcome, str]) -> None:
    path, outcome, _ = finished
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [1, 2, 3]
    assert {"return", "term_quality", "nfe", "entropy", "approx_kl", "stage_network_s", "eta_s"} <= rows[0].keys()
    assert rows[-1]["eta_s"] == 0
    assert sorted(file.name for file in (path / "plots").iterdir()) == [
        "action_mix.png", "film_strips.png", "learning_curves.png", "stopping_times.png",
    ]  # fmt: skip
    assert json.loads((path / "result.json").read_text()) == outcome.result
    assert list((path / "tensorboard").iterdir())


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
    outcome, text = train(toy_plan(path, config), interrupted_crew(4))  # two chunks of references, then iterations
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


def test_ctrl_c_during_the_references_leaves_at_the_next_chunk(tmp_path: Path) -> None:
    outcome, _ = train(toy_plan(tmp_path / "run", toy_config()), interrupted_crew(1))
    assert outcome.interrupted
    assert not (tmp_path / "run" / "references.npz").exists()


def test_a_prompt_that_cannot_be_scored_stops_the_run_with_its_text(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path / "run", toy_config())
    bad = Plan(
        config=plan.config,
        path=plan.path,
        train_prompts=(make_prompt(0, f"an {UNSCORABLE} scene"),),
        test_prompts=plan.test_prompts,
    )
    with pytest.raises(RolloutError, match=f"'an {UNSCORABLE} scene' could not be drawn"):
        train(bad)


def test_nothing_is_written_when_a_role_cannot_start(tmp_path: Path) -> None:
    @contextmanager
    def broken(config: Config) -> Iterator[Crew]:
        raise RolloutError("no worker came up.")
        yield

    with pytest.raises(RolloutError):
        train(toy_plan(tmp_path / "run", toy_config()), broken)
    assert not (tmp_path / "run").exists()
