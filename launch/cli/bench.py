"""`addiffusion bench ...`: what things cost on this machine."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from launch.bench.orders import (
    EngineOrder,
    FinishOrder,
    PipelineOrder,
    RewardOrder,
    ServingOrder,
    SpeedOrder,
    TrainOrder,
)
from launch.cli.options import Files, Settings, prepared_console
from launch.cli.reward import Json

Overrides = Annotated[
    tuple[str, ...],
    typer.Argument(metavar="[KEY=VALUE]...", help="Configuration overrides such as rollout.slots=16."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Only the JSON line on stdout.")]


def engine(order: EngineOrder, *, as_json: AsJson = False) -> None:
    """Compare the engine with the bare network, lock-step batches, one image at a time, and diffusers' own pipeline.

    Episodes have U[5, 50] steps and refine at a tenth of their decisions. Rates are NFE per second.
    """
    from launch.bench.engine import bench_engine, table_of

    result = bench_engine(order, Console(stderr=True))
    if not as_json:
        Console().print(table_of(result))
    typer.echo(json.dumps(result))


def collect(
    *,
    overrides: Overrides = (),
    count: Annotated[int, typer.Option(min=1, help="Episodes to roll out.")] = 32,
    config: Files = (),
    as_json: AsJson = False,
) -> None:
    """Compare the whole rollout loop with its network passes, decodes and scores alone.

    An untrained policy decides; the embedded prompts are drawn.
    """
    from launch.bench.collect import bench_collect, table_of
    from launch.bench.setup import collect_setup
    from launch.runtime.console import Stage

    console = Console(stderr=True)
    with Stage(console, "loading the models"):
        setup = collect_setup(config, overrides, count=count)
    result = bench_collect(setup, console)
    if not as_json:
        Console().print(table_of(result))
    typer.echo(json.dumps(result))


def finish(order: FinishOrder, *, overrides: Overrides = (), config: Files = (), as_json: AsJson = False) -> None:
    """Compare DDIM and DPM-Solver++ 2M as the end of stopped images: NFE, scene score, CLIP, preference."""
    from launch.bench.finish import bench_finish, check_stops, choice, choice_text, combinations, table_of
    from launch.bench.setup import finish_setup
    from launch.runtime.console import Stage
    from launch.runtime.serial import serial_components

    settings, prompts = finish_setup(config, overrides, count=order.count)
    check_stops(order, settings)
    shown = Stage(Console(stderr=True), "ways to end an image", combinations(order, settings), headline="")
    with shown, serial_components(settings) as components:
        rows = bench_finish(order, prompts, settings, components, shown.advance)
    chosen = choice(rows)
    if not as_json:
        Console().print(table_of(rows))
        Console().print(choice_text(chosen))
    typer.echo(json.dumps({"rows": rows, "choice": chosen}))


def pipeline(order: PipelineOrder, *, as_json: AsJson = False) -> None:
    """Compare a pipeline led by a policy with the stock one at equal images and equal passes."""
    from launch.bench.pipeline import bench_pipeline, table_of

    result = bench_pipeline(order, Console(stderr=True))
    if not as_json:
        Console().print(table_of(result))
    typer.echo(json.dumps(result))


def speed(order: SpeedOrder, *, as_json: AsJson = False) -> None:
    """Compare the speed of held-out images with the `speed=` that the policy card was asked for."""
    from launch.bench.speed import bench_speed, table_of, to_json

    rows = bench_speed(order, Console(stderr=True))
    if not as_json:
        Console().print(table_of(rows))
    typer.echo(json.dumps(to_json(rows)))


def bench_serve(order: ServingOrder, *, as_json: AsJson = False) -> None:
    """Compare the server under the shipped policy with itself without one, and with static batches with and without.

    Client processes send requests of mixed settings at random times (a Poisson process), whether or not earlier ones
    are answered. Loads are shares of what the engine draws under the policy when it is never idle.
    """
    from launch.bench.serve import bench_serve as measure
    from launch.bench.serve import table_of

    result = measure(order, Console(stderr=True))
    if not as_json:
        Console().print(table_of(result))
    typer.echo(json.dumps(result))


def startup(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds in which the processes take turns.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Compare the CPU time of `sample` and `score` with that of a process that only imports what they need."""
    from launch.bench.startup import bench_startup, table_of, to_json

    rows = bench_startup(rounds, Console(stderr=True))
    if not as_json:
        Console().print(table_of(rows))
    typer.echo(json.dumps(to_json(rows)))


def bench_reward(order: RewardOrder, *, settings: Settings = (), as_json: Json = False) -> None:
    """Compare scorers called directly, through the service with 1, 2 and 4 clients, and one image at a time.

    The last line is JSON; with --json it is the only one on stdout.
    """
    console = prepared_console(as_json=as_json)
    from launch.bench.reward import run, table

    result = run(order, console, settings)
    console.print(table(result))
    typer.echo(json.dumps(result.to_json()))


def bench_train(order: TrainOrder, *, overrides: Overrides = (), config: Files = (), as_json: AsJson = False) -> None:
    """Measure what a distributed iteration costs beside its rollouts, and weak scaling over simulated ones.

    learner_share: learner, weight broadcast, ticket handling and driver, as a share of the wall clock of real
    iterations. weak_scaling: seconds of an iteration with the fewest --workers over those with the most, each with
    --tickets tickets. These workers are SIMULATED: they sleep for as long as the real ones were seen to take for an
    episode (or for --episode-seconds), and return episodes of real size; so it says whether learner and driver keep
    up, not what a machine's cores do.
    """
    console = prepared_console(as_json=True)
    from launch.bench.train import bench_train as measure
    from launch.bench.train import fleet_table, table_of, train_setup

    result = measure(train_setup(order, config, overrides), console)
    if not as_json:
        Console().print(table_of(result))
        Console().print(fleet_table(result))
    typer.echo(json.dumps(result))
