"""`addiffusion ablate`: what each part of the method is worth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from launch.cli.options import AsJson, prepared_console


def ablate(
    name: Annotated[str, typer.Argument(metavar="STUDY", help="A study that ships, or a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Configuration of all variants.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder; runs/ablate-<study> by default.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings per variant.")] = 1,
    bank: Annotated[
        Path | None,
        typer.Option(metavar="BANK", help="Start every variant from this trajectory bank.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train every variant of a study and put their held-out results side by side.

    Trainings that are done are kept: a study that was interrupted goes on with the same --out.
    """
    console = prepared_console(as_json=as_json)
    from launch.comparing.ablate import AblateOrder, ablation_table, load_ablation
    from launch.comparing.ablate import ablate as run

    ablation = load_ablation(name)
    order = AblateOrder(
        ablation=ablation,
        out=out or Path("runs") / f"ablate-{ablation.name}",
        seeds=tuple(range(seeds)),
        overrides=tuple(overrides or ()),
        bank=bank,
    )
    rows = run(order, console=console)
    if as_json:
        typer.echo(json.dumps({"question": ablation.question, "rows": rows}))
    else:
        console.print(ablation_table(ablation, rows))
