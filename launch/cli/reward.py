"""Commands around scores: `score`, `reward status`, `reward stop`, `bench reward`."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from launch.cli.bench import bench_app
from launch.cli.options import Files, prepared_console

reward_app = typer.Typer(no_args_is_help=True, help="Reward services that run on a cluster.")

Address = Annotated[str, typer.Option(help="Ray cluster to look at: auto, or host:port.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout instead of a table.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-s", metavar="KEY=VALUE", help="Configuration override such as scorers.kind=pretrained; repeatable."
    ),
]


class BenchScorers(StrEnum):
    """What `bench reward` scores with."""

    EMBEDDED = "embedded"
    PRETRAINED = "pretrained"
    RANDOM = "random"


def score(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.", show_default=False)],
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What the images should show.", show_default=False)],
    settings: Settings = None,
    config: Files = None,
    as_json: Json = False,
) -> None:
    """Score images against a prompt with every scorer there is, and print a table.

    The scorers of the embedded world judge its own 64 x 64 scenes; --set scorers.kind=pretrained judges any image.
    """
    from launch.runtime.console import Stage
    from launch.runtime.logging_setup import log_to

    console = Console(stderr=as_json)
    log_to(console)
    with Stage(console, "scoring"):
        from evaluation.tables import ascii_only
        from launch.comparing.score import score_files, table, to_json

        scored = score_files(images, prompt, files=config or [], overrides=settings or [])
    if as_json:
        typer.echo(json.dumps(to_json(scored)))
    else:
        console.print(table(scored, ascii_only=ascii_only(console)))


@reward_app.command()
def status(address: Address = "auto", as_json: Json = False) -> None:
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


@reward_app.command()
def stop(name: Annotated[str, typer.Argument(help="Its scorers.service.")], address: Address = "auto") -> None:
    """End a reward service that runs share; runs that still use it fail."""
    from launch.runtime.cluster import prepare_environment

    prepare_environment()
    from launch.runtime.reward_status import stop_service

    stop_service(name, address)
    typer.echo(f"reward service {name} is stopped")


@bench_app.command(name="reward")
def bench_reward(
    scorers: Annotated[
        BenchScorers, typer.Option(help="random: the full-size models with random weights, no downloads.")
    ] = BenchScorers.EMBEDDED,
    device: Annotated[str, typer.Option(help="torch device of the scorers.")] = "cpu",
    size: Annotated[int | None, typer.Option(min=8, help="Pixels per side; 64 (embedded), else 512.")] = None,
    request_images: Annotated[
        int | None, typer.Option(min=1, help="Images a client sends at once; default: a whole pass.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each contestant in each round.")] = 1.5,
    rounds: Annotated[int, typer.Option(min=1, help="Contestants take turns; ratios are medians over rounds.")] = 7,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Compare scorers called directly, through the service with 1, 2 and 4 clients, and one image at a time.

    The last line is JSON; with --json it is the only one on stdout.
    """
    console = prepared_console(as_json=as_json)
    from launch.bench.reward import BenchOrder, run, table

    order = BenchOrder(
        scorers=scorers.value,
        device=device,
        size=size,
        request_images=request_images,
        seconds=seconds,
        rounds=rounds,
        overrides=tuple(settings or ()),
    )
    result = run(order, console)
    console.print(table(result))
    typer.echo(json.dumps(result.to_json()))
