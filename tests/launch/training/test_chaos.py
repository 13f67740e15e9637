"""Ten minutes of blows against one training change nothing of what it ends in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from addiffusion.checkpoint_files import latest_checkpoint
from learner.checkpoint import load_checkpoint
from rollout_workers.recorder import read_episodes
from tests.cluster.head import BIN, ROOT
from tests.contract.test_runs import assert_same
from tests.launch.training.chaos import Chaos, complaints, small_disk

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]
CHAOS_S = float(os.environ.get("CHAOS_S", "600"))
"""How long it is struck; then it may finish."""
SEED = int(os.environ.get("CHAOS_SEED", "0"))
ITERATIONS = int(os.environ.get("CHAOS_ITERATIONS", "100"))
BATCH = 8
SMALL = (
    f"ppo.iterations={ITERATIONS}", f"ppo.batch_size={BATCH}", "ppo.minibatch_size=16", "ppo.epochs=1",
    "policy.hidden=[16]", "sampler.num_steps=6", "sampler.finish_steps=2", "rollout.slots=4",
    "rollout.cpus_per_worker=0.3", "scorers.batch_images=4", "prompts.train_count=24", "evaluation.prompt_count=3",
    "evaluation.static_steps=4", "run.film_strips=1", "run.record_episodes=true", "checkpoint.every=2",
    "run.if_exists=resume",
)  # fmt: skip


def log(what: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {what}", file=sys.stderr, flush=True)


def undisturbed(run: Path) -> None:
    """The same training in one process."""
    command = [str(BIN / "addiffusion"), "train", *SMALL, f"run.dir={run}", "cluster.mode=serial"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr


def test_a_training_that_is_struck_again_and_again_ends_in_the_same_weights(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64m") as disk:
        run = disk / "run"
        chaos = Chaos(command=("train", *SMALL, f"run.dir={run}"), run=run, disk=disk, seed=SEED, log=log)
        count = chaos.until(CHAOS_S)
        log(f"{count} drivers, {len(chaos.blows)} blows: {chaos.blows}")
        undisturbed(twin := tmp_path / "undisturbed")
        check_the_same(run, twin)
        possible = chaos.possible()
    assert set(chaos.blows) == possible, "raise CHAOS_ITERATIONS: the training was over before all had happened"
    assert [line for console in chaos.consoles for line in complaints(console)] == []
    assert chaos.left_behind == []


def check_the_same(run: Path, twin: Path) -> None:
    """Every ticket trained once, by the same decisions, into the same weights."""
    ends = [load_checkpoint(latest_checkpoint(one)) for one in (run, twin)]
    assert [end.ledger.trained_count for end in ends] == [ITERATIONS * BATCH] * 2
    for found, expected in (
        (ends[0].learner.policy, ends[1].learner.policy),
        (ends[0].learner.value, ends[1].learner.value),
    ):
        assert found.keys() == expected.keys()
        assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    episodes, others = ([*read_episodes(one / "episodes")] for one in (run, twin))
    assert [episode.ticket.ticket_id for episode in episodes] == list(range(ITERATIONS * BATCH))
    for found, expected in zip(episodes, others, strict=True):
        assert_same(found, expected)
    for one in (run, twin):
        rows = [json.loads(line) for line in (one / "metrics.jsonl").read_text().splitlines()]
        assert [row["iteration"] for row in rows] == list(range(1, ITERATIONS + 1))
        assert {row["episodes_dropped"] for row in rows} == {row["audit_length_gap"] for row in rows} == {0}
    results = [json.loads((one / "result.json").read_text()) for one in (run, twin)]
    for name in (
        "mean_nfe",
        "scene",
        "scene_full",
        "clip",
        "clip_full",
        "actions",
        "return_training",
        "return_held_out",
    ):
        assert results[0][name] == results[1][name], name
