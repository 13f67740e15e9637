"""Commands around trajectory banks: `bank build`, `bank info`, `bank play`."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from addiffusion.assets import SHIPPED
from launch.banks.orders import BankOrder, Folder
from launch.cli.border import EXIT_INTERRUPTED
from launch.cli.options import AsJson, Files, prepared_console
from launch.comparing.comparison_orders import Policy

Overrides = Annotated[
    tuple[str, ...],
    typer.Argument(metavar="[KEY=VALUE]...", help="Configuration overrides such as bank.every=1."),
]


def build(order: BankOrder, *, overrides: Overrides = (), config: Files = (), as_json: AsJson = False) -> None:
    """Roll prompts out to full length, score every step, and try stop on the way.

    A build that was killed goes on where it was; one with a larger --count grows.
    """
    console = prepared_console(as_json=as_json)
    from addiffusion.configuration.files import load_config
    from launch.banks.build import build as build_bank

    built = build_bank(order, load_config(config, overrides), console=console)
    if as_json:
        typer.echo(json.dumps({"trajectories": built.trajectory_count, "new": built.new_count, "s": built.seconds}))
    if not built.complete:
        raise typer.Exit(EXIT_INTERRUPTED)


def info(folder: Folder, *, overrides: Overrides = (), config: Files = (), as_json: AsJson = False) -> None:
    """Show what a bank holds, and where an oracle would stop."""
    from addiffusion.configuration.files import load_config
    from launch.banks.info import describe, tables

    described = describe(folder, load_config(config, overrides), console=Console(stderr=True))
    if as_json:
        typer.echo(json.dumps(described.as_json()))
    else:
        for shown in tables(described):
            Console().print(shown)


def play(
    folder: Folder,
    *,
    policy: Policy = SHIPPED,
    prices: Annotated[tuple[float, ...], typer.Option("--price", min=0.0, help="Price per NFE; may be repeated.")] = (),
    as_json: AsJson = False,
) -> None:
    """Replay a policy on a bank, at several prices, beside an oracle and stops that do not look.

    On a bank of held-out prompts (`bank build --split test`) this is its whole speed/quality front, without an image.
    """
    from launch.banks.play import play as replay
    from launch.banks.play import quality_table, table

    played = replay(folder, policy, prices, console=Console(stderr=True))
    if as_json:
        typer.echo(json.dumps([one.as_json() for one in played]))
    else:
        for shown in (table(played), quality_table(played)):
            Console().print(shown)
