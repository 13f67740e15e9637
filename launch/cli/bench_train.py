"""`addiffusion bench train`."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from launch.cli.bench import AsJson, Overrides
from launch.cli.options import Files, prepared_console


def bench_train(
    overrides: Overrides = None,
    iterations: Annotated[int, typer.Option(min=1, help="Measured iterations; one more loads the models.")] = 3,
    tickets: Annotated[int, typer.Option(min=1, help="Tickets of a simulated worker per iteration.")] = 16,
    config: Files = None,
    as_json: AsJson = False,
) -> None:
    """Measure what a distributed iteration costs beside its rollouts, and weak scaling from 1 to 8 workers.

    learner_share: learner, weight broadcast, ticket handling and driver, as a share of the wall clock of real
    iterations. weak_scaling: seconds of an iteration with 1 worker over those with 8, each with --tickets tickets.
    These workers are SIMULATED: they sleep for as long as the real ones were seen to take per episode, and return
    episodes of real size; so it says whether learner and driver keep up, not what a machine's cores do.
    """
    console = prepared_console(as_json=True)
    from launch.bench.train import bench_train as measure
    from launch.bench.train import table_of, train_order

    result = measure(train_order(config or [], overrides or [], iterations=iterations, tickets=tickets), console)
    if not as_json:
        Console().print(table_of(result))
    typer.echo(json.dumps(result))
