"""`addiffusion gate`: the plan's criteria, with figures and an exit code."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from launch.cli.options import AsJson, prepared_console


class GateName(StrEnum):
    """What is asked for."""

    G0 = "g0"
    G1 = "g1"
    G2 = "g2"
    G3 = "g3"


def gate(
    name: Annotated[GateName, typer.Argument(help="g0 memory, g1 training, g2 beats DDIM-20, g3 equals DDIM-50.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Configuration overrides.", show_default=False)
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="g1: a run; g2, g3: a comparison. Without it one is made.", show_default=False
        ),
    ] = None,
    longest: Annotated[float, typer.Option(min=0.001, help="g1: seconds an iteration may take.")] = 60.0,
    limit: Annotated[int, typer.Option(min=6, help="g2, g3 without a folder: prompts.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Check one gate of the plan: every criterion with its figure; exit code 1 where one fails."""
    console = prepared_console(as_json=as_json)
    from launch.comparing.gates import GateOrder, check_gate, gate_table

    order = GateOrder(gate=name.value, folder=folder, overrides=tuple(overrides or ()), longest_s=longest, limit=limit)
    checked = check_gate(order, console)
    if as_json:
        typer.echo(json.dumps(checked.as_json()))
    else:
        console.print(gate_table(checked))
    if not checked.passed:
        raise typer.Exit(1)
