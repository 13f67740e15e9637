"""README's commands, word for word and in its order, in an empty folder; only sizes are added.

What a cluster needs is in tests/launch/runtime/test_token.py and tests/cluster.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from launch.cli.app import app

README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
SMALL = shlex.split(
    "sampler.num_steps=6 sampler.finish_steps=2 ppo.iterations=1 ppo.batch_size=6 ppo.epochs=1 policy.hidden=[16] "
    "rollout.slots=4 prompts.train_count=4 evaluation.prompt_count=6 evaluation.static_steps=4 run.film_strips=1 "
    "cluster.mode=serial"
)
ADDED = {
    "train": SMALL,
    "sample": [],
    "config": [],
    "evaluate": ["--quick", "--limit=6", "--films=0"],
    "report": ["--films=1"],
    "bank": SMALL,
    "doctor": [],
}
"""What a command is given besides, by its name."""
LEAVES = {
    "train": "runs/*/result.json",
    "sample": "out.png",
    "evaluate": "evaluations/*/result.json",
    "report": "runs/*/report.html",
    "bank": "banks/train/*",
}
"""Where its result must be."""
ON_A_CLUSTER = {"token"}


def commands() -> Iterator[list[str]]:
    """Arguments of each `addiffusion` of the page's consoles, without what a shell would take as a comment."""
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        for line in re.findall(r"^\$ (.*)$", block, re.MULTILINE):
            for command in shlex.split(line, comments=True), :
                words = " ".join(command).split(" && ")
                yield from (one.split()[3:] for one in words if one.startswith("uv run addiffusion "))
