"""The command `tune`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from launch.cli.border import EXIT_INTERRUPTED
from launch.cli.options import AsJson, Files, prepared_console


def tune(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY", help="YAML file, e.g. configs/studies/balanced.yaml.", show_default=False)
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Configuration of all trials.", show_default=False),
    ] = None,
    bank: Annotated[
        Path | None,
        typer.Option(metavar="BANK", help="Trajectory bank that trials are replayed on.", show_default=False),
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Train trials live instead: minutes each.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Folder; runs/tune-<study> by default.", show_default=False),
    ] = None,
    concurrent: Annotated[int, typer.Option(min=1, help="Trials at once, each on one CPU.")] = 1,
    config: Files = None,
    as_json: AsJson = False,
) -> None:
    """Search for the best configuration with Ray Tune and Optuna, and write it as YAML.

    A study that was interrupted goes on when it is started again with the same folder.
    """
    console = prepared_console(as_json=as_json)
    from addiffusion.errors import ConfigError

    if (bank is None) != live:
        raise ConfigError("tune needs either --bank BANK (see `addiffusion bank build`) or --live.")
    from launch.tuning.study import load_study
    from launch.tuning.tune import TuneOrder, table, tune_study

    loaded = load_study(study)
    order = TuneOrder(
        study=loaded,
        folder=out or Path("runs") / f"tune-{study.stem}",
        bank=bank,
        files=tuple(config or ()),
        overrides=tuple(overrides or ()),
        concurrent=concurrent,
    )
    tuned = tune_study(order, console=console)
    if tuned.best_file is not None:
        console.print(table(tuned, loaded))
        console.print(f"best configuration: {tuned.best_file}", highlight=False)
    if as_json:
        counts = {"trials": len(tuned.trials), "failed": tuned.failed_count, "left": tuned.left_count}
        typer.echo(json.dumps({"best": next(iter(tuned.trials), None), **counts}))
    if tuned.left_count:
        console.print(f"{tuned.left_count} trials are left: start the study again to go on with it", highlight=False)
        raise typer.Exit(EXIT_INTERRUPTED)
