"""`addiffusion ablate`: what each part of the method is worth."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from launch.cli.options import AsJson, prepared_console
from launch.comparing.orders import AblateOrder


def ablate(
    order: AblateOrder,
    *,
    overrides: Annotated[
        tuple[str, ...], typer.Argument(metavar="[KEY=VALUE]...", help="Configuration of all variants.")
    ] = (),
    as_json: AsJson = False,
) -> None:
    """Train every variant of a study and put their held-out results side by side.

    Trainings that are done are kept: a study that was interrupted goes on with the same --out.
    """
    console = prepared_console(as_json=as_json)
    from launch.comparing.ablate import ablate as run
    from launch.comparing.ablate import ablation_table, load_ablation

    ablation = load_ablation(order.study)
    rows = run(ablation, order, overrides=overrides, console=console)
    if as_json:
        typer.echo(json.dumps({"question": ablation.question, "rows": rows}))
    else:
        console.print(ablation_table(ablation, rows))
