"""Commands around comparisons: `evaluate`, `export`, `report`, `results`."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from addiffusion.memory import without_garbage_search
from launch.cli.options import AsJson, has_display, prepared_console
from launch.comparing.comparison_orders import EvaluateOrder, ParetoOrder, ResultsOrder, SettingsOrder
from launch.comparing.orders import ExportOrder, ReportOrder

Overrides = Annotated[
    tuple[str, ...],
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Overrides of the policy's own configuration, such as cluster.mode=serial or rollout.workers=4.",
    ),
]


def evaluate(order: EvaluateOrder, *, overrides: Overrides = (), as_json: AsJson = False) -> None:
    """Compare a policy with static samplers and stopping rules on held-out prompts, same seeds for all.

    Every static solver also runs with the agent's mean NFE and in the agent's time. A run that was interrupted goes on
    with the same --out. With several --policy, --guidance or --steps there is a comparison for each of them together,
    and tables over all.
    """
    console = prepared_console(as_json=as_json)
    if order.guidance or order.steps or len(order.policies) > 1:
        _across(order, overrides, console, as_json=as_json)
        return
    with without_garbage_search():
        from launch.comparing.evaluate import evaluate as run
        from launch.comparing.evaluate_view import standings_table

    evaluated = run(order, overrides=overrides, console=console)
    if as_json:
        typer.echo(json.dumps(evaluated.summary))
    else:
        console.print(standings_table(evaluated.result))
        console.print(f"tables, figures and images are in {evaluated.path}", highlight=False)


def _across(order: EvaluateOrder, overrides: tuple[str, ...], console: Console, *, as_json: bool) -> None:
    from launch.comparing.across import evaluate_across
    from launch.comparing.evaluate_view import settings_tables

    across = evaluate_across(order, overrides=overrides, console=console)
    if as_json:
        typer.echo(json.dumps(across.as_json()))
    else:
        for table in settings_tables(across):
            console.print(table)
        console.print(f"the comparisons, settings.md and settings.png are in {across.path}", highlight=False)


def export(order: ExportOrder) -> None:
    """Write a run's policy, configuration and policy card into a small folder that every --policy takes.

    The card says what the policy was trained for and what images cost at each price, which `speed=` of the Python
    pipeline goes by.
    """
    console = prepared_console(as_json=True)
    from launch.comparing.export import export as run

    policy = run(order, console)
    size = sum(value.nbytes for value in policy.weights.values()) / 1e6
    typer.echo(f"policy ({size:.1f} MB), configuration and policy card are in {order.out}")


def report(
    order: ReportOrder,
    *,
    show: Annotated[
        bool, typer.Option("--open/--no-open", help="Open it in the browser where there is a display.")
    ] = True,
) -> None:
    """Write one self-contained HTML page about a run, finished or running, or about a comparison."""
    from launch.runtime.console import Stage
    from launch.runtime.logging_setup import log_to

    console = Console()
    log_to(console)
    with Stage(console, "loading"):
        from launch.comparing.report import write_report
    path = write_report(order, console=console)
    typer.echo(str(path))
    if show and has_display():
        typer.launch(path.absolute().as_uri())


def results(order: ResultsOrder, *, overrides: Overrides = ()) -> None:
    """Measure the shipped policy against everybody in the embedded world and write docs/results.md.

    Images that were drawn already are kept: after a kill, the same command goes on.
    """
    console = prepared_console()
    from evaluation.report.results_page import results_page, write_results
    from launch.comparing.evaluate import evaluate as run
    from launch.comparing.results import machine, result_command

    done = run(order.evaluation(), overrides=overrides, console=console)
    command = result_command(order, overrides)
    page = results_page(done.result, done.summary, command=command, machine=machine())
    write_results(order.page, page, done.path / "plots")
    console.print(f"{order.page} is written", highlight=False)


def settings(order: SettingsOrder, *, overrides: Overrides = ()) -> None:
    """Measure policies at every guidance scale and number of steps against everybody: their section of docs/results.md.

    With a policy of each training seed it says whether a recipe holds, and first of all where it does not. Images that
    were drawn already are kept.
    """
    console = prepared_console()
    from evaluation.comparison.forest import FOREST
    from evaluation.report.page_sections import write_pictures, write_section
    from evaluation.report.settings_section import settings_section
    from launch.comparing.across import evaluate_across
    from launch.comparing.results import machine, settings_command

    across = evaluate_across(order.evaluation(), overrides=overrides, console=console)
    command = settings_command(order, overrides)
    said = settings_section(
        across.policies, across.rows, across.without, metric=across.metric, command=command, machine=machine()
    )
    write_section(order.page, said)
    write_pictures(order.page, [across.path / FOREST])
    console.print(f"the section is in {order.page}", highlight=False)


def pareto(order: ParetoOrder, *, overrides: Overrides = ()) -> None:
    """Measure a policy at each price against static samplers and hand-made opponents: their section of docs/results.md.

    Guidance off after a step or outside an interval, leaps at fixed steps, draws of which the best goes on, draws that
    are given up below a score: what a person would save by without learning. Images that were drawn already are kept.
    """
    console = prepared_console()
    from evaluation.comparison.handmade import HANDMADE
    from evaluation.report.handmade_section import FRONT, handmade_section, told_metrics
    from evaluation.report.page_sections import write_pictures, write_section
    from launch.comparing.evaluate import evaluate as run
    from launch.comparing.results import machine, pareto_command

    done = run(order.evaluation(order.handmade or HANDMADE), overrides=overrides, console=console)
    command = pareto_command(order, overrides)
    write_section(order.page, handmade_section(done.result, command=command, machine=machine()))
    drawn = done.path / "plots" / f"pareto_{told_metrics(done.result)[0]}.png"
    write_pictures(order.page, [drawn], name=FRONT)
    console.print(f"the section is in {order.page}", highlight=False)
