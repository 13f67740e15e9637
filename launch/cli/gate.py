"""`addiffusion gate`: the plan's criteria, with figures and an exit code."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from launch.cli.options import AsJson, prepared_console
from launch.comparing.orders import GateOrder


def gate(
    order: GateOrder,
    *,
    overrides: Annotated[
        tuple[str, ...], typer.Argument(metavar="[KEY=VALUE]...", help="Configuration overrides.")
    ] = (),
    as_json: AsJson = False,
) -> None:
    """Check one gate of the plan: every criterion with its figure; exit code 1 where one fails."""
    console = prepared_console(as_json=as_json)
    from launch.comparing.gates import check_gate, gate_table

    checked = check_gate(order, overrides=overrides, console=console)
    if as_json:
        typer.echo(json.dumps(checked.as_json()))
    else:
        console.print(gate_table(checked))
    if not checked.passed:
        raise typer.Exit(1)
