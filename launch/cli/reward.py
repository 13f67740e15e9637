"""Commands around scores: `score`, `reward status`, `reward stop`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from addiffusion.memory import without_garbage_search
from launch.cli.options import Files, Settings

Address = Annotated[str, typer.Option(help="Ray cluster to look at: auto, or host:port.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout instead of a table.")]


def score(
    *,
    images: Annotated[tuple[Path, ...], typer.Argument(metavar="IMAGE...", help="Image files.")],
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What the images should show.")],
    settings: Settings = (),
    config: Files = (),
    as_json: Json = False,
) -> None:
    """Score images against a prompt with every scorer there is, and print a table.

    The scorers of the embedded world judge its own 64 x 64 scenes; --set scorers.kind=pretrained judges any image.
    """
    from launch.runtime.console import Stage
    from launch.runtime.logging_setup import log_to

    console = Console(stderr=as_json)
    log_to(console)
    with Stage(console, "loading"), without_garbage_search():
        from evaluation.tables import ascii_only
        from launch.comparing.score import score_files, table, to_json
    scored = score_files(images, prompt, files=config, overrides=settings, console=console)
    if as_json:
        typer.echo(json.dumps(to_json(scored)))
    else:
        console.print(table(scored, ascii_only=ascii_only(console)))


def status(*, address: Address = "auto", as_json: Json = False) -> None:
    """Show what each replica of each reward service has done and is doing."""
    from launch.runtime.cluster import prepare_environment

    prepare_environment()
    from launch.runtime.reward_status import statuses, tables, to_json

    found = statuses(address)
    if as_json:
        typer.echo(json.dumps(to_json(found)))
    else:
        for shown in tables(found):
            Console().print(shown)


def stop(*, name: Annotated[str, typer.Argument(help="Its scorers.service.")], address: Address = "auto") -> None:
    """End a reward service that runs share; runs that still use it fail."""
    from launch.runtime.cluster import prepare_environment

    prepare_environment()
    from launch.runtime.reward_status import stop_service

    stop_service(name, address)
    typer.echo(f"reward service {name} is stopped")
