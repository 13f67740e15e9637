"""The training loop around toy models: what it leaves behind, resume, Ctrl-C."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from addiffusion.checkpoint_files import latest_checkpoint, list_checkpoints
from addiffusion.config import Config, SamplerSection
from addiffusion.errors import ConfigError, RolloutError, RunFolderError, UsageError
from addiffusion.policy_files import read_policy
from addiffusion.records import FailedEpisode, Ticket
from addiffusion.rollouts import Collected, Rollouts
from launch.runtime.components import Components
from launch.runtime.folder_lock import locked
from launch.training.preflight import Plan, prepare
from launch.training.tracking import check_tracking
from launch.training.train import Outcome, run
from learner.checkpoint import load_checkpoint
from tests.disks import names, small_disk
from tests.fakes import UNSCORABLE, make_prompt
from tests.launch.runtime.toy_components import toy_components, toy_config, toy_plan

pytestmark = pytest.mark.usefixtures("figures_once")


def train(plan: Plan, roles: object = toy_components) -> tuple[Outcome, str]:
    stream = io.StringIO()
    outcome = run(plan, console=Console(file=stream, width=130), roles=roles)  # pyright: ignore[reportArgumentType]
    return outcome, stream.getvalue()


def test_many_visits_of_few_pairs_are_foretold(tmp_path: Path) -> None:
    config = toy_config(ppo={"iterations": 3, "batch_size": 24})
    _, said = train(toy_plan(tmp_path / "often", config), interrupted_components(1))
    assert "each of 6 training pairs will be visited 12 times" in said
    assert "prompts.train_count=8" in said


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

    def advance(self, tickets: Sequence[Ticket]) -> Collected:
        return self.rollouts.advance(tickets)


def interrupted_components(count: int, kind: type[SignalAfter] = SignalAfter) -> object:
    @contextmanager
    def components(config: Config) -> Iterator[Components]:
        with toy_components(config) as toys:
            yield Components(rollouts=kind(toys.rollouts, count), scoring=toys.scoring, learner=toys.learner)

    return components


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


class GoneAfter(SignalAfter):
    """Rollouts whose workers are all lost in the ``count``-th collection."""

    def collect(self, tickets: Sequence[Ticket], *, sampler: SamplerSection | None = None) -> Collected:
        self.left -= 1
        if self.left == 0:
            raise RolloutError("No rollout worker is left.")
        return self.rollouts.collect(tickets, sampler=sampler)


def test_a_run_that_loses_its_workers_keeps_what_was_trained(tmp_path: Path) -> None:
    """Between two checkpoints: a resume goes on there, and does not draw the references again."""
    path, config = tmp_path / "run", toy_config(checkpoint={"every": 50}, ppo={"iterations": 4})
    with pytest.raises(RolloutError, match="No rollout worker is left"):
        train(toy_plan(path, config), interrupted_components(6, GoneAfter))
    checkpoint = load_checkpoint(latest_checkpoint(path))
    assert checkpoint.iteration == 2
    outcome, text = train(replace(toy_plan(path, config), checkpoint=checkpoint))
    assert "full-length images" not in text
    assert outcome.result is not None
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [1, 2, 3, 4]


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


class BlindAtTheEnd(SignalAfter):
    """Rollouts of which no image of the comparison comes back: its contestants name their sampler."""

    def collect(self, tickets: Sequence[Ticket], *, sampler: SamplerSection | None = None) -> Collected:
        if sampler is None:
            return self.rollouts.collect(tickets)
        return Collected(
            episodes=(), failed=tuple(FailedEpisode(ticket=one, reason="`clip` did not finish.") for one in tickets)
        )


def test_a_comparison_without_an_image_fails_with_the_reason_and_can_be_made_again(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(RolloutError, match=r"none of the policy's held-out images could be drawn; .*`clip` did not"):
        train(toy_plan(path, toy_config()), interrupted_components(0, BlindAtTheEnd))
    assert not (path / "result.json").exists()
    checkpoint = load_checkpoint(latest_checkpoint(path))
    outcome, _ = train(replace(toy_plan(path, toy_config()), checkpoint=checkpoint))
    assert outcome.result is not None


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


def test_a_prompt_that_cannot_be_scored_stops_the_run_with_its_text(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path / "run", toy_config())
    bad = Plan(
        config=plan.config,
        path=plan.path,
        train_prompts=(make_prompt(0, f"an {UNSCORABLE} scene"),),
        test_prompts=plan.test_prompts,
    )
    stream = io.StringIO()
    with pytest.raises(RolloutError, match=f"'an {UNSCORABLE} scene' could not be drawn in 4 attempts"):
        run(bad, console=Console(file=stream, width=200), roles=toy_components)
    assert f"what is finished is kept: `addiffusion train resume={bad.path}` goes on" in stream.getvalue()


def test_nothing_is_written_when_a_role_cannot_start(tmp_path: Path) -> None:
    @contextmanager
    def broken(config: Config) -> Iterator[Components]:
        raise RolloutError("no worker came up.")
        yield

    with pytest.raises(RolloutError):
        train(toy_plan(tmp_path / "run", toy_config()), broken)
    assert not (tmp_path / "run").exists()


def collapsing_plan(path: Path, **tracking: object) -> Plan:
    """Images that are told to stop at once, as good as always."""
    config = toy_config(
        policy={"prior": [0.0005, 0.999, 0.0005]},
        ppo={"iterations": 6},
        alarms={"grace": 0, "patience": 2},
        tracking={"plot_every_s": 0.001, **tracking},
    )
    return toy_plan(path, config)


def test_a_collapsed_policy_is_told_once_and_ends_the_run_only_when_asked(tmp_path: Path) -> None:
    outcome, text = train(collapsing_plan(tmp_path / "warned"))
    assert outcome.result is not None
    assert text.count("warning: always_stop: 100.0% of the images stop at their first decision") == 1
    rows = [json.loads(line) for line in (tmp_path / "warned" / "metrics.jsonl").read_text().splitlines()]
    assert [row["alarm_always_stop"] for row in rows] == [0, 1, 1, 1, 1, 1]
    assert (tmp_path / "warned" / "plots" / "training_action_mix.png").is_file()  # drawn while it ran

    outcome, text = train(replace(collapsing_plan(tmp_path / "ended"), stop_on_collapse=True))
    assert outcome.collapse is not None
    assert outcome.collapse.name == "always_stop"
    assert not outcome.interrupted
    assert "stopped because of always_stop" in text
    assert load_checkpoint(latest_checkpoint(tmp_path / "ended")).iteration == 2
    assert (tmp_path / "ended" / "plots" / "learning_curves.png").is_file()


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


@pytest.mark.parametrize("kilobytes", [8, 16, 28, 60, 120])
def test_a_full_disk_ends_with_one_sentence_that_is_true(tmp_path: Path, kilobytes: int) -> None:
    """Wherever it fills: references, metrics, TensorBoard, checkpoints."""
    with small_disk(tmp_path / "disk", kilobytes) as disk:
        path = disk / "run"
        config = toy_config(checkpoint={"every": 1, "keep": 9}, ppo={"iterations": 12})
        refused = pytest.raises(UsageError, match=r"(?s)can't be written.*No space left on device")
        with refused as caught:
            train(toy_plan(path, config))
        assert not [name for name in names(disk) if "partial" in name or ".lock" in name]
        kept = list_checkpoints(path)
        for folder in kept:
            load_checkpoint(folder)
        assert ("go on with" in str(caught.value)) == path.exists(), "a run goes on, before its first checkpoint too"


def test_a_picture_that_cannot_be_drawn_takes_no_result_with_it(tmp_path: Path) -> None:
    path = tmp_path / "run"

    @contextmanager
    def blocked(config: Config) -> Iterator[Components]:
        with toy_components(config) as toys:
            yield Components(rollouts=Blocking(toys.rollouts, path), scoring=toys.scoring, learner=toys.learner)

    outcome, said = train(toy_plan(path, toy_config()), blocked)
    assert outcome.result is not None
    assert json.loads((path / "result.json").read_text()) == outcome.result
    assert "warning: " in said
    assert "plots can't be written (" in " ".join(said.split())
    assert "always continue (8)" in said


class Blocking(SignalAfter):
    """Rollouts that put a file where the plots should be."""

    def __init__(self, rollouts: Rollouts, path: Path) -> None:
        super().__init__(rollouts, -1)
        self.path = path

    def collect(self, tickets: Sequence[Ticket], *, sampler: SamplerSection | None = None) -> Collected:
        (self.path / "plots").touch()
        return super().collect(tickets, sampler=sampler)


def test_a_run_that_another_process_works_on_is_left_alone(tmp_path: Path) -> None:
    path, config = tmp_path / "run", toy_config()
    train(toy_plan(path, config), interrupted_components(4))
    plan = replace(toy_plan(path, config), checkpoint=load_checkpoint(latest_checkpoint(path)))
    before = names(path)
    with locked(path):
        with pytest.raises(RunFolderError, match=r"run is in use by process \d+ on "):
            train(plan)
        command = [f"run.dir={path}", "run.if_exists=resume", "cluster.mode=serial"]
        with pytest.raises(RunFolderError, match=r"run is in use by process \d+ on "):
            prepare([], command)
        (path / "checkpoints").rename(tmp_path / "away")  # as before the first checkpoint
        with pytest.raises(RunFolderError, match=r"run is in use by process \d+ on "):
            prepare([], command)
        (tmp_path / "away").rename(path / "checkpoints")
    assert names(path) == before
