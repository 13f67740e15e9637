"""`addiffusion bench startup`: CPU time of short commands over that of a bare process that imports what they need."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console

from addiffusion.configuration.shown import shortened
from addiffusion.errors import UsageError
from evaluation.tables import Table
from launch.bench.rounds import Ratio, Turn, ratio, shown_turns
from launch.runtime.console import Stage

_ALWAYS: Final = (
    "numpy",
    "PIL.Image",
    "pydantic",
    "rich.console",
    "rich.table",
    "safetensors.torch",
    "torch",
    "typer",
    "yaml",
)
NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "sample": (
        *_ALWAYS,
        "diffusers.models.autoencoders.autoencoder_tiny",
        "diffusers.models.unets.unet_2d_condition",
        "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
        "diffusers.schedulers.scheduling_ddim",
        "transformers.models.clip.modeling_clip",
        "transformers.models.clip.tokenization_clip",
    ),
    "score": (*_ALWAYS, "open_clip", "scipy.ndimage", "timm", "transformers.models.clip.tokenization_clip"),
}
"""By command: what it can't work without. A library that a command merely happens to import is not listed."""
_PROMPT: Final = "a red circle and a blue square"
_TWO_STEPS: Final = ("sampler.num_steps=2", "sampler.warmup_steps=1", "sampler.finish_steps=1")


@dataclass(frozen=True, slots=True, kw_only=True)
class StartupRow:
    """One command beside its bare process."""

    command_s: float
    """CPU seconds, user and system, of the median round."""
    bare_s: float
    """The same of the process that only imports."""
    over_bare: Ratio
    """CPU time of the command over that of the bare process."""


def bench_startup(rounds: int, console: Console) -> dict[str, StartupRow]:
    """Draw an image and score it, each beside its bare process; see ``compare``."""
    with tempfile.TemporaryDirectory() as folder:
        commands = commands_of(str(Path(folder) / "image.png"))
        return compare(commands, {name: NEEDED[words[0]] for name, words in commands.items()}, rounds, console)


def commands_of(image: str) -> dict[str, tuple[str, ...]]:
    """Words after `addiffusion`, by name of the row; the first draws the file ``image``, the last scores it.

    An image as it comes is 50 guided passes; one of two passes takes next to nothing beside its start-up.
    """
    sample = ("sample", _PROMPT, "--out", image)
    return {"sample": sample, "sample, 2 steps": (*sample, *_TWO_STEPS), "score": ("score", image, "--prompt", _PROMPT)}


def compare(
    commands: Mapping[str, Sequence[str]], needed: Mapping[str, tuple[str, ...]], rounds: int, console: Console
) -> dict[str, StartupRow]:
    """Run each command and its bare process as new processes, in turns; those that need the same share the latter.

    Args:
        commands: words after `addiffusion`, by name.
        needed: modules that the bare process imports, by name of the command.
        rounds: turns of each process, 1 or more.
        console: where it is shown how far that is.

    Raises:
        UsageError: a process failed; the sentence has its last line.
    """
    contestants: dict[str, Callable[[], Turn]] = {}
    bare: dict[tuple[str, ...], str] = {}
    for name, words in commands.items():
        contestants[name] = partial(_turn, "from launch.cli.app import main; main()", *words)
        shared = bare.setdefault(needed[name], f"bare imports of {name}")
        contestants[shared] = partial(_turn, f"import {', '.join(needed[name])}")
    with Stage(console, "warming up"):
        for name in commands:
            contestants[name]()  # the first draws the image to score; files are then found fast, for both sides
    turns = shown_turns(contestants, rounds, console)
    return {name: _row(turns[name], turns[bare[needed[name]]]) for name in commands}


def table_of(rows: Mapping[str, StartupRow]) -> Table:
    """The result for people; in brackets the extremes of the rounds."""
    table = Table(title="CPU seconds of a command", box=None, header_style="bold", title_justify="left")
    table.add_column("command")
    for name in ("command", "bare imports", "over bare"):
        table.add_column(name, justify="right")
    for name, row in rows.items():
        over = row.over_bare
        table.add_row(
            name, f"{row.command_s:.1f}", f"{row.bare_s:.1f}", f"{over.median:.2f} ({over.low:.2f} to {over.high:.2f})"
        )
    return table


def to_json(rows: Mapping[str, StartupRow]) -> dict[str, Any]:
    """The same for programs."""
    return {name: asdict(row) for name, row in rows.items()}


def _row(command: Sequence[Turn], bare: Sequence[Turn]) -> StartupRow:
    return StartupRow(
        command_s=float(np.median([turn.seconds for turn in command])),
        bare_s=float(np.median([turn.seconds for turn in bare])),
        over_bare=ratio(bare, command),  # rates: so many processes of the one in the time of the other
    )


def _turn(code: str, *words: str) -> Turn:
    """One process from start to end; its seconds are CPU seconds."""
    before = _children_s()
    done = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # on a busy machine, threads that wait for each other use CPU time
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UsageError(f"a process that was to be measured failed ({shortened(last)}): run `addiffusion doctor`.")
    spent = _children_s() - before
    return Turn(image_count=1, seconds=spent, latencies_s=(spent,))


def _children_s() -> float:
    """CPU seconds of all ended children of this process."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
