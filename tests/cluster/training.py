"""The trainings that are submitted: the embedded default, made small."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.cluster.head import BIN, ROOT
from tests.cluster.waiting import wait_for

BATCH = 4
ENDLESS = 100_000
TWIN_S = 600.0
SMALL = (
    "cluster.address=auto",
    "rollout.slots=2",
    "rollout.cpus_per_worker=0.4",
    "sampler.num_steps=6",
    "sampler.finish_steps=2",
    f"ppo.batch_size={BATCH}",
    "ppo.minibatch_size=8",
    "ppo.epochs=1",
    "policy.hidden=[16]",
    "scorers.batch_images=4",
    "prompts.train_count=4",
    "evaluation.prompt_count=3",
    "evaluation.static_steps=4",
    "run.film_strips=1",
)


def train_command(run_dir: str, iterations: int, *more: str) -> list[str]:
    """What is submitted; the same again goes on where the first has stopped."""
    return [
        "addiffusion", "train", *SMALL, f"ppo.iterations={iterations}", f"run.dir={run_dir}", "run.if_exists=resume",
        *more,
    ]  # fmt: skip


def rows(run: Path) -> list[dict[str, Any]]:
    """The finished iterations of a run."""
    file = run / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def serial_state(run: Path, iteration: int, *more: str) -> dict[str, Any]:
    """What the checkpoint after ``iteration`` iterations says of itself, of an endless training in one process."""
    every = ("cluster.mode=serial", "checkpoint.every=1", f"checkpoint.keep={ENDLESS}")
    command = train_command(str(run), ENDLESS, *more, *every)
    state = run / "checkpoints" / f"iteration-{iteration:06d}" / "state.json"
    with subprocess.Popen(
        [str(BIN / command[0]), *command[1:]], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}
    ) as process:
        try:
            wait_for(f"iteration {iteration}", lambda: state.is_file() or process.poll() is not None, timeout_s=TWIN_S)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=120)
    return json.loads(state.read_text())
