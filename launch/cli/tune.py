"""The command `tune`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from launch.cli.border import EXIT_INTERRUPTED
from launch.cli.options import AsJson, Files, prepared_console
from launch.tuning.orders import TuneOrder


def tune(
    order: TuneOrder,
    *,
    overrides: Annotated[
        tuple[str, ...], typer.Argument(metavar="[KEY=VALUE]...", help="Configuration of all trials.")
    ] = (),
    config: Files = (),
    as_json: AsJson = False,
) -> None:
    """Search for the best configuration with Ray Tune and Optuna, and write it as YAML.

    A study that was interrupted goes on when it is started again with the same folder.
    """
    console = prepared_console(as_json=as_json)
    from launch.tuning.study import load_study
    from launch.tuning.tune import StudySetup, table, tune_study

    setup = StudySetup(study=load_study(order.study), order=order, files=config, overrides=overrides)
    tuned = tune_study(setup, console=console)
    if tuned.best_file is not None:
        console.print(table(tuned, setup.study))
        console.print(f"best configuration: {tuned.best_file}", highlight=False)
    if as_json:
        counts = {"trials": len(tuned.trials), "failed": tuned.failed_count, "left": tuned.left_count}
        typer.echo(json.dumps({"best": next(iter(tuned.trials), None), **counts}))
    if tuned.left_count:
        console.print(f"{tuned.left_count} trials are left: start the study again to go on with it", highlight=False)
        raise typer.Exit(EXIT_INTERRUPTED)
