"""`addiffusion bench ...`: what things cost on this machine."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console

from launch.cli.options import Files

bench_app = typer.Typer(no_args_is_help=True, help="Measure on this machine: a table, and last one JSON line.")

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Configuration overrides such as rollout.slots=16."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Only the JSON line on stdout.")]


class BenchBackbone(StrEnum):
    """Models of known shape."""

    EMBEDDED = "embedded"
    SD15 = "sd15-random"
    SDXL = "sdxl-random"


class BenchDtype(StrEnum):
    """Precision of the network."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class BenchCompile(StrEnum):
    """How the network is compiled."""

    OFF = "off"
    DEFAULT = "default"
    CUDA_GRAPHS = "cuda_graphs"


@bench_app.command()
def engine(
    backbone: Annotated[BenchBackbone, typer.Option(help="embedded, or a full-size shape with random weights.")] = (
        BenchBackbone.EMBEDDED
    ),
    device: Annotated[str, typer.Option(help="torch device; auto takes a GPU where there is one.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; a rollout worker has one.")] = 1,
    slots: Annotated[
        int | None,
        typer.Option(min=1, help="Images denoised at once; default: where the network is fastest.", show_default=False),
    ] = None,
    dtype: Annotated[BenchDtype, typer.Option(help="Precision of the network.")] = BenchDtype.FLOAT32,
    compile_: Annotated[BenchCompile, typer.Option("--compile", help="torch.compile, or CUDA graphs with it.")] = (
        BenchCompile.OFF
    ),
    guidance: Annotated[float, typer.Option(min=0, help="Guidance scale; above 1 a pass is a pair.")] = 3.5,
    seconds: Annotated[float, typer.Option(min=0.01, help="Least time of each contestant in a round.")] = 1.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds in which the contestants take turns.")] = 9,
    as_json: AsJson = False,
) -> None:
    """Compare the engine with the bare network, lock-step batches, one image at a time, and diffusers' own pipeline.

    Episodes have U[5, 50] steps and refine at a tenth of their decisions. Rates are NFE per second.
    """
    from launch.bench.engine import BenchOrder, bench_engine, table_of
    from launch.runtime.console import Stage

    order = BenchOrder(
        backbone=backbone.value,
        device=device,
        threads=threads,
        dtype=dtype.value,
        compile=compile_.value,
        slots=slots,
        guidance_scale=guidance,
        seconds=seconds,
        rounds=rounds,
    )
    with Stage(Console(stderr=True), "measuring the engine"):
        result = bench_engine(order)
    if not as_json:
        Console().print(table_of(result))
    typer.echo(json.dumps(result))


@bench_app.command()
def collect(
    overrides: Overrides = None,
    count: Annotated[int, typer.Option(min=1, help="Episodes to roll out.")] = 32,
    config: Files = None,
    as_json: AsJson = False,
) -> None:
    """Compare the whole rollout loop with its network passes, decodes and scores alone.

    An untrained policy decides; the embedded prompts are drawn.
    """
    from launch.bench.collect import CollectOrder, bench_collect, table_of
    from launch.bench.setup import collect_setup
    from launch.runtime.console import Stage

    prepared = collect_setup(config or [], overrides or [], count=count)
    order = CollectOrder(config=prepared.config, prompts=prepared.prompts, width=prepared.width)
    with Stage(Console(stderr=True), "measuring the rollout loop"):
        result = bench_collect(order, prepared.backbone, prepared.scoring)
    if not as_json:
        Console().print(table_of(result))
    typer.echo(json.dumps(result))


@bench_app.command()
def finish(
    overrides: Overrides = None,
    count: Annotated[int, typer.Option(min=1, help="Held-out prompts to draw.")] = 12,
    passes: Annotated[
        list[int] | None,
        typer.Option("--passes", "-m", min=0, help="Finish passes; may be repeated. Default 0 1 2 3 4 6."),
    ] = None,
    stop_at: Annotated[
        list[int] | None, typer.Option(min=1, help="Step of the stop; may be repeated. Default 5 10 20.")
    ] = None,
    config: Files = None,
    as_json: AsJson = False,
) -> None:
    """Compare DDIM and DPM-Solver++ 2M as the end of stopped images: NFE, scene score, CLIP, preference."""
    from launch.bench.finish import FinishOrder, bench_finish, choice, choice_text, table_of
    from launch.bench.setup import finish_setup
    from launch.runtime.console import Stage
    from launch.runtime.serial import serial_components

    settings, prompts = finish_setup(config or [], overrides or [], count=count)
    order = FinishOrder(
        prompts=prompts, passes=tuple(passes or (0, 1, 2, 3, 4, 6)), stops=tuple(stop_at or (5, 10, 20))
    )
    order.check(settings)
    shown = Stage(Console(stderr=True), "ways to end an image", order.count(settings), headline="")
    with shown, serial_components(settings) as components:
        rows = bench_finish(order, settings, components, shown.advance)
    chosen = choice(rows)
    if not as_json:
        Console().print(table_of(rows))
        Console().print(choice_text(chosen))
    typer.echo(json.dumps({"rows": rows, "choice": chosen}))
