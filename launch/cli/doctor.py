"""`addiffusion doctor` and `addiffusion token`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from launch.cli.options import Files, prepared_console
from launch.doctor.orders import DoctorOrder


def doctor(
    *,
    overrides: Annotated[
        tuple[str, ...],
        typer.Argument(metavar="[KEY=VALUE]...", help="Configuration overrides of the run to come."),
    ] = (),
    config: Files = (),
    order: DoctorOrder,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of a table.")] = False,
) -> None:
    """Say what this machine or cluster can run: versions, GPUs, token, weights, memory, and a tiny run.

    Exit code 1 if anything stands in the way of the run that KEY=VALUE and FILE describe.
    """
    console = prepared_console(as_json=as_json)
    from addiffusion.configuration.files import load_config
    from launch.doctor.doctor import examine, failed, table, to_json
    from launch.runtime.console import Stage

    resolved = load_config(config, overrides)
    with Stage(console, "looking"):
        checks = list(examine(order, resolved, files=config, overrides=overrides))
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
