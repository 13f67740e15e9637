"""Runs that lose their workers, their images, their policy or their disk: what is kept, and what is said."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from addiffusion.checkpoint_files import latest_checkpoint, list_checkpoints
from addiffusion.config import Config, SamplerSection
from addiffusion.errors import RolloutError, RunFolderError, UsageError
from addiffusion.records import FailedEpisode, Ticket
from addiffusion.rollouts import Collected, Rollouts
from launch.runtime.components import Components
from launch.runtime.folder_lock import locked
from launch.training.preflight import Plan, prepare
from launch.training.train import run
from learner.checkpoint import load_checkpoint
from tests.disks import names, small_disk
from tests.fakes import UNSCORABLE, make_prompt
from tests.launch.runtime.toy_components import toy_components, toy_config, toy_plan
from tests.launch.training.toy_runs import SignalAfter, interrupted_components, train

pytestmark = pytest.mark.usefixtures("figures_once")


def test_many_visits_of_few_pairs_are_foretold(tmp_path: Path) -> None:
    config = toy_config(ppo={"iterations": 3, "batch_size": 24})
    _, said = train(toy_plan(tmp_path / "often", config), interrupted_components(1))
    assert "each of 6 training pairs will be visited 12 times" in said
    assert "prompts.train_count=8" in said


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


class Blocking(SignalAfter):
    """Rollouts that put a file where the plots should be."""

    def __init__(self, rollouts: Rollouts, path: Path) -> None:
        super().__init__(rollouts, -1)
        self.path = path

    def collect(self, tickets: Sequence[Ticket], *, sampler: SamplerSection | None = None) -> Collected:
        (self.path / "plots").touch()
        return super().collect(tickets, sampler=sampler)


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
