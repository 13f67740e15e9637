"""`addiffusion train` and `addiffusion config`."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Annotated

import typer
from rich.console import Console

from addiffusion.extras import look_for
from addiffusion.memory import without_garbage_search
from launch.cli.border import EXIT_COLLAPSED, EXIT_INTERRUPTED
from launch.cli.options import AsJson, Files, Overrides, prepared_console


def train(
    *,
    overrides: Overrides = (),
    config: Files = (),
    stop_on_collapse: Annotated[
        bool,
        typer.Option("--stop-on-collapse", help="Save, leave with exit code 3 when an alarm of alarms.stop_on rings."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a policy and compare it with fixed samplers on held-out prompts.

    Everything is written to a new folder (run.dir, by default runs/<UTC time>). `resume=FOLDER` goes on with a run.
    """
    look_for("ray")
    console = prepared_console(as_json=as_json)
    from launch.runtime.console import Stage

    with Stage(console, "checking the configuration"):
        with without_garbage_search():
            from launch.training.preflight import prepare
            from launch.training.train import run

        plan = prepare(config, overrides)
    outcome = run(replace(plan, stop_on_collapse=stop_on_collapse), console=console)
    if as_json and outcome.result is not None:
        typer.echo(json.dumps(outcome.result))
    if outcome.collapse is not None:
        raise typer.Exit(EXIT_COLLAPSED)
    if outcome.interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)


def show_config(
    *,
    overrides: Overrides = (),
    config: Files = (),
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of commented YAML.")] = False,
) -> None:
    """Print the resolved configuration; every key stands under its documentation."""
    from addiffusion.configuration.files import load_config
    from addiffusion.configuration.text import to_yaml

    resolved = load_config(config, overrides)
    if as_json:
        typer.echo(resolved.model_dump_json(indent=2))
    elif sys.stdout.isatty():
        from rich.syntax import Syntax

        Console().print(Syntax(to_yaml(resolved), "yaml", background_color="default"))
    else:
        typer.echo(to_yaml(resolved), nl=False)
