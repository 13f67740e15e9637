"""Commands on folders of images: `metrics`, `judge`."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from evaluation.tables import Table
from launch.cli.options import AsJson
from launch.comparing.orders import JudgeOrder, MetricsOrder


def metrics(
    order: MetricsOrder,
    *,
    settings: Annotated[
        tuple[str, ...], typer.Option("--set", "-s", metavar="KEY=VALUE", help="Such as scorers.kind=pretrained.")
    ] = (),
    as_json: AsJson = False,
) -> None:
    """Measure a folder of images: scores against prompts, distances to another folder."""
    from launch.comparing.metrics_of_folder import measure_folder
    from launch.runtime.logging_setup import log_to

    console = Console(stderr=as_json)
    log_to(console)
    found = measure_folder(order, overrides=settings, console=console)
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = Table(header_style="bold")
    for name in ("metric", "value", "images"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for name, entry in found.items():
        table.add_row(name, f"{entry['value']:.4f}", str(entry["count"]))
    console.print(table)


def judge(order: JudgeOrder, *, as_json: AsJson = False) -> None:
    """Let a vision-language model compare images of the same prompts, both orders each, and rank the folders.

    The key comes from the environment variable ADDIFFUSION_JUDGE_KEY; local servers need none.
    """
    from launch.runtime.logging_setup import log_to

    console = Console(stderr=as_json)
    log_to(console)
    from launch.comparing.judge_folders import judge_folders, make_contests, to_json
    from launch.runtime.console import Stage

    contests = make_contests(order)
    with Stage(console, "contests", len(contests)) as stage:
        judgement, standings = judge_folders(order, contests, stage.advance)
    if as_json:
        typer.echo(json.dumps(to_json(judgement, standings)))
        return
    table = Table(
        title=f"{len(contests)} contests, strength as log-odds against {order.folders[0].name}", header_style="bold"
    )
    for name in ("folder", "strength", "95 % interval", "wins", "contests"):
        table.add_column(name, justify="left" if name == "folder" else "right")
    for one in standings:
        interval = f"[{one.interval.low:+.2f}, {one.interval.high:+.2f}]"
        table.add_row(one.name, f"{one.strength:+.2f}", interval, f"{one.wins:g}", str(one.contest_count))
    console.print(table)
