"""Commands around trajectory banks: `bank build`, `bank info`, `bank play`."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from launch.cli.border import EXIT_INTERRUPTED
from launch.cli.options import AsJson, Files, prepared_console

bank_app = typer.Typer(
    no_args_is_help=True, help="Trajectory banks: every prompt rolled out once, with every place it could have stopped."
)

Folder = Annotated[Path, typer.Argument(metavar="BANK", help="Folder of the bank.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Configuration overrides such as bank.every=1.", show_default=False),
]


class BankSplit(StrEnum):
    """Which prompts are rolled out."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"
    COMPOSITIONAL = "compositional"


@bank_app.command()
def build(
    folder: Folder,
    overrides: Overrides = None,
    split: Annotated[BankSplit, typer.Option(help="train has the very images that `train` trains on.")] = (
        BankSplit.TRAIN
    ),
    count: Annotated[
        int | None,
        typer.Option(min=1, help="Prompts, one seed each; without it prompts.train_count.", show_default=False),
    ] = None,
    config: Files = None,
    as_json: AsJson = False,
) -> None:
    """Roll prompts out to full length, score every step, and try stop on the way.

    A build that was killed goes on where it was; one with a larger --count grows.
    """
    console = prepared_console(as_json=as_json)
    from launch.banks.build import BankOrder
    from launch.banks.build import build as build_bank
    from launch.configuration.files import load_config

    resolved = load_config(config or [], overrides or [])
    order = BankOrder(folder=folder, config=resolved, split=split.value, count=count or resolved.prompts.train_count)
    built = build_bank(order, console=console)
    if as_json:
        typer.echo(json.dumps({"trajectories": built.trajectory_count, "new": built.new_count, "s": built.seconds}))
    if not built.complete:
        raise typer.Exit(EXIT_INTERRUPTED)


@bank_app.command()
def info(folder: Folder, overrides: Overrides = None, config: Files = None, as_json: AsJson = False) -> None:
    """Show what a bank holds, and where an oracle would stop."""
    from launch.banks.info import describe, tables
    from launch.configuration.files import load_config
    from launch.runtime.console import Stage

    with Stage(Console(stderr=True), "reading the bank"):
        described = describe(folder, load_config(config or [], overrides or []))
    if as_json:
        typer.echo(json.dumps(described.as_json()))
    else:
        for shown in tables(described):
            Console().print(shown)


@bank_app.command()
def play(
    folder: Folder,
    policy: Annotated[
        str,
        typer.Option(
            metavar="shipped|RUN|PATH", help="The policy that ships, a run, a checkpoint, an exported folder."
        ),
    ] = "shipped",
    prices: Annotated[
        list[float] | None,
        typer.Option("--price", min=0.0, help="Price per NFE; may be repeated.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Replay a policy on a bank, at several prices, beside an oracle and stops that do not look.

    On a bank of held-out prompts (`bank build --split test`) this is its whole speed/quality front, without an image.
    """
    from launch.banks.play import play as replay
    from launch.banks.play import quality_table, table
    from launch.runtime.console import Stage

    with Stage(Console(stderr=True), "replaying"):
        played = replay(folder, policy, prices or [])
    if as_json:
        typer.echo(json.dumps([one.as_json() for one in played]))
    else:
        for shown in (table(played), quality_table(played)):
            Console().print(shown)
