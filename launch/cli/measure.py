"""Commands on folders of images: `metrics`, `judge`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from evaluation.tables import Table
from launch.cli.options import AsJson

Prompts = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="A prompt per line, in the order of file names; a comparison's folder knows them."
    ),
]


def metrics(
    images: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of images.", show_default=False)],
    metric: Annotated[
        list[str] | None, typer.Option("--metric", "-m", help="May be repeated; default clip. A wrong one lists all.")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Images to compare with: as a set (fid, kid, cmmd, fd_dino), or by name (ssim)."
        ),
    ] = None,
    prompts: Prompts = None,
    inception: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="torch-fidelity's InceptionV3 weights for fid, kid, inception_score; downloaded."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Such as scorers.kind=pretrained.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a folder of images: scores against prompts, distances to another folder."""
    from launch.comparing.metrics_of_folder import MetricsOrder, measure_folder
    from launch.runtime.logging_setup import log_to

    console = Console(stderr=as_json)
    log_to(console)
    order = MetricsOrder(
        images=images,
        metrics=tuple(metric or ("clip",)),
        reference=reference,
        prompts=prompts,
        inception=inception,
        overrides=tuple(settings or ()),
    )
    found = measure_folder(order, console=console)
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = Table(header_style="bold")
    for name in ("metric", "value", "images"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for name, entry in found.items():
        table.add_row(name, f"{entry['value']:.4f}", str(entry["count"]))
    console.print(table)


def judge(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Reference first.", show_default=False)],
    base_url: Annotated[str, typer.Option(help="OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1.")],
    model: Annotated[str, typer.Option(help="Vision-language model at that endpoint.")],
    prompts: Prompts = None,
    verdicts: Annotated[Path, typer.Option(help="Kept here and not asked again.")] = Path("verdicts.jsonl"),
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many images.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Let a vision-language model compare images of the same prompts, both orders each, and rank the folders.

    The key comes from the environment variable ADDIFFUSION_JUDGE_KEY; local servers need none.
    """
    from launch.runtime.logging_setup import log_to

    console = Console(stderr=as_json)
    log_to(console)
    from evaluation.judge.endpoint import Endpoint
    from launch.comparing.judge_folders import JudgeOrder, judge_folders, make_contests, to_json
    from launch.runtime.console import Stage

    order = JudgeOrder(
        folders=tuple(folders),
        endpoint=Endpoint(base_url=base_url, model=model),
        verdicts=verdicts,
        prompts=prompts,
        limit=limit,
    )
    contests = make_contests(order)
    with Stage(console, "contests", len(contests)) as stage:
        judgement, standings = judge_folders(order, contests, stage.advance)
    if as_json:
        typer.echo(json.dumps(to_json(judgement, standings)))
        return
    table = Table(
        title=f"{len(contests)} contests, strength as log-odds against {folders[0].name}", header_style="bold"
    )
    for name in ("folder", "strength", "95 % interval", "wins", "contests"):
        table.add_column(name, justify="left" if name == "folder" else "right")
    for one in standings:
        interval = f"[{one.interval.low:+.2f}, {one.interval.high:+.2f}]"
        table.add_row(one.name, f"{one.strength:+.2f}", interval, f"{one.wins:g}", str(one.contest_count))
    console.print(table)
