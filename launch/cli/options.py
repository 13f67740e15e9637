"""What commands share: options with one meaning everywhere, and how a command begins."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from addiffusion.errors import PromptError
from launch.configuration.shown import shown

AsJson = Annotated[bool, typer.Option("--json", help="Progress on stderr; one JSON object on stdout.")]
Files = Annotated[
    list[Path] | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="YAML file over the shipped defaults; may be repeated.",
        show_default=False,
    ),
]


def prepared_console(*, as_json: bool = False) -> Console:
    """Where a command shows what it does, on stderr beside JSON; what Ray reads at its import is set."""
    from launch.runtime.cluster import prepare_environment
    from launch.runtime.logging_setup import log_to

    prepare_environment()
    console = Console(stderr=as_json)
    log_to(console)
    return console


def refuse_loose_words(prompt: str, overrides: Sequence[str]) -> None:
    """A prompt that the shell has taken apart: its words stand where overrides do.

    Raises:
        PromptError: an override has no equals sign.
    """
    loose = [word for word in overrides if "=" not in word]
    if loose:
        raise PromptError(
            f"the prompt is {shown(prompt)}, and {shown(' '.join(loose))} after it is no key=value: put a prompt of "
            'several words in quotes, as in `addiffusion sample "a red circle"`.',
            words=loose,
        )


def has_display() -> bool:
    """Whether a browser would have a screen: elsewhere its starter complains, or opens one in the terminal."""
    return sys.platform in {"darwin", "win32"} or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
