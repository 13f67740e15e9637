"""What commands share: options with one meaning everywhere, and how a command begins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

EXIT_INTERRUPTED = 130

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
    from launch.cluster import prepare_environment
    from launch.quiet import log_to

    prepare_environment()
    console = Console(stderr=as_json)
    log_to(console)
    return console
