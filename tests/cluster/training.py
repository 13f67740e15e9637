"""The trainings that are submitted: the embedded default, made small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SMALL = (
    "cluster.address=auto",
    "rollout.slots=2",
    "rollout.cpus_per_worker=0.4",
    "sampler.num_steps=6",
    "sampler.finish_steps=2",
    "ppo.batch_size=4",
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
