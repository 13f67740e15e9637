"""`addiffusion doctor` and `addiffusion token`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from launch.cli.options import Files, prepared_console


def doctor(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Configuration overrides of the run to come.", show_default=False
        ),
    ] = None,
    config: Files = None,
    cluster_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also check this yaml of `ray up`, e.g. cluster.yaml.", show_default=False),
    ] = None,
    smoke: Annotated[bool, typer.Option(help="End with a tiny run of everything.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of a table.")] = False,
) -> None:
    """Say what this machine or cluster can run: versions, GPUs, token, weights, memory, and a tiny run.

    Exit code 1 if anything stands in the way of the run that KEY=VALUE and FILE describe.
    """
    console = prepared_console(as_json=as_json)
    from launch.configuration.files import load_config
    from launch.doctor.doctor import Order, examine, failed, table, to_json
    from launch.runtime.console import Stage

    order = Order(
        config=load_config(config or [], overrides or []),
        files=config or [],
        overrides=overrides or [],
        cluster_file=cluster_file,
        smoke=smoke,
    )
    with Stage(console, "looking"):
        checks = list(examine(order))
    if as_json:
        typer.echo(json.dumps(to_json(checks)))
    else:
        console.print(table(checks), soft_wrap=True)
    if failed(checks):
        raise typer.Exit(1)


def token() -> None:
    """Make Ray's token if there is none, closed to other users, and print where it lies.

    Every node of a cluster needs the same one: the files in cluster/ take it from there.
    """
    from launch.runtime.token import TOKEN, ensure_token

    typer.echo(ensure_token() or f"in the environment, {TOKEN}")
