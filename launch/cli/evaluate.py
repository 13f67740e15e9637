"""Commands around comparisons: `evaluate`, `export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from launch.cli.options import AsJson, has_display, prepared_console

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Overrides of the policy's own configuration, such as cluster.mode=serial or rollout.workers=4.",
        show_default=False,
    ),
]
Samplers = Annotated[
    list[str] | None,
    typer.Option(metavar="SOLVER-STEPS", help="Static sampler such as dpm++2m-20; may be repeated."),
]
BestOf = Annotated[int, typer.Option(min=0, help="Random search over so many seeds; 0: none.")]
WithLiterature = Annotated[
    bool, typer.Option(help="Self-attention guidance, Attend-and-Excite and distilled models, where at hand.")
]
Policy = Annotated[
    str,
    typer.Option(metavar="shipped|RUN|PATH", help="The policy that ships, a run, a checkpoint, an exported folder."),
]


def evaluate(
    overrides: Overrides = None,
    policy: Policy = "shipped",
    prompts: Annotated[
        str, typer.Option(help="embedded/test (or validation, compositional), or a prompt file.")
    ] = "embedded/test",
    limit: Annotated[int, typer.Option(min=1, help="Prompts.")] = 300,
    seeds: Annotated[int, typer.Option(min=1, help="Images per prompt; a prompt's images are averaged first.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Default evaluations/<UTC time>; one that exists is gone on with."),
    ] = None,
    sampler: Samplers = None,
    price: Annotated[
        list[float] | None, typer.Option(min=0.0, help="Ask the policy at this price of an NFE, too; may be repeated.")
    ] = None,
    stops: Annotated[int, typer.Option(min=0, help="Steps at which all images are stopped, for the oracle.")] = 9,
    oracle: Annotated[
        list[str] | None,
        typer.Option(metavar="SCORE", help="Oracle stop by this score; may be repeated. Default reward and clip."),
    ] = None,
    bank: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Trajectory bank of these prompts, for an exact oracle.", show_default=False
        ),
    ] = None,
    best_of: BestOf = 8,
    lcm_lora: Annotated[
        Path | None, typer.Option(metavar="FILE", help="LCM-LoRA of this model, for LCM-LoRA-4.", show_default=False)
    ] = None,
    sdxl_turbo: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="SDXL-Turbo's pipeline, for SDXL-Turbo-4.", show_default=False)
    ] = None,
    literature: WithLiterature = True,
    films: Annotated[int, typer.Option(min=0, help="Images whose every decision is kept for the report.")] = 24,
    margin: Annotated[
        float,
        typer.Option(min=0.0001, max=0.5, help="Largest loss that does not matter, share of the full run's mean."),
    ] = 0.01,
    quick: Annotated[
        bool, typer.Option("--quick", help="Agent, controls, oracle, and DDIM and DPM-Solver++ at the agent's NFE.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare a policy with static samplers and stopping rules on held-out prompts, same seeds for all.

    Every static solver also runs with the agent's mean NFE and in the agent's time. A run that was interrupted goes on
    with the same --out.
    """
    console = prepared_console(as_json=as_json)
    from launch.comparing.evaluate import EvaluateOrder
    from launch.comparing.evaluate import evaluate as run
    from launch.comparing.evaluate_view import standings_table

    order = EvaluateOrder(
        policy=policy,
        prompts=prompts,
        limit=limit,
        repeats=seeds,
        out=out,
        samplers=None if sampler is None else tuple(sampler),
        prices=tuple(price or ()),
        stops=stops,
        best_of=best_of,
        oracles=tuple(oracle or ("reward", "clip")),
        bank=bank,
        literature=literature,
        lcm_lora=lcm_lora,
        sdxl_turbo=sdxl_turbo,
        films=films,
        margin=margin,
        quick=quick,
    )
    evaluated = run(order, overrides=overrides or [], console=console)
    if as_json:
        typer.echo(json.dumps(evaluated.summary))
    else:
        console.print(standings_table(evaluated.result))
        console.print(f"tables, figures and images are in {evaluated.path}", highlight=False)


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run or checkpoint folder.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder to write.", show_default=False)],
) -> None:
    """Write a run's policy and configuration into a small folder that every --policy takes."""
    from launch.training.policies import export_policy

    policy = export_policy(run, out)
    size = sum(value.nbytes for value in policy.weights.values()) / 1e6
    typer.echo(f"policy ({size:.1f} MB) and configuration are in {out}")


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run, or a comparison of `evaluate`.")],
    comparison: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Comparison to show beside the run.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="HTML file; default report.html in the folder.")
    ] = None,
    films: Annotated[int, typer.Option(min=0, help="Held-out prompts to draw as film strips of a run.")] = 12,
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
        from launch.comparing.report import ReportOrder, write_report
    path = write_report(ReportOrder(folder=folder, comparison=comparison, out=out, films=films), console=console)
    typer.echo(str(path))
    if show and has_display():
        typer.launch(path.absolute().as_uri())


def results(
    overrides: Overrides = None,
    policy: Policy = "shipped",
    limit: Annotated[int, typer.Option(min=6, help="Held-out prompts.")] = 300,
    seeds: Annotated[int, typer.Option(min=1, help="Images per prompt.")] = 3,
    sampler: Samplers = None,
    best_of: BestOf = 8,
    literature: WithLiterature = True,
    comparison: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where images lie; an interrupted run goes on from there.")
    ] = Path("evaluations/results"),
    page: Annotated[Path, typer.Option(metavar="FILE", help="Page to write.")] = Path("docs/results.md"),
) -> None:
    """Measure the shipped policy against everybody in the embedded world and write docs/results.md.

    Images that were drawn already are kept: after a kill, the same command goes on.
    """
    console = prepared_console()
    from evaluation.report.results_page import results_page, write_results
    from launch.comparing.evaluate import EvaluateOrder
    from launch.comparing.evaluate import evaluate as run
    from launch.comparing.results import machine, result_command

    order = EvaluateOrder(
        policy=policy,
        limit=limit,
        repeats=seeds,
        out=comparison,
        samplers=None if sampler is None else tuple(sampler),
        best_of=best_of,
        literature=literature,
    )
    done = run(order, overrides=overrides or [], console=console)
    command = result_command(order, overrides or [])
    write_results(
        page, results_page(done.result, done.summary, command=command, machine=machine()), done.path / "plots"
    )
    console.print(f"{page} is written", highlight=False)
