"""The command line. Commands import what they need when they run, so that help appears at once."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from addiffusion import __version__
from launch.cli.ablate import ablate
from launch.cli.bank import bank_app
from launch.cli.bench import bench_app
from launch.cli.bench_train import bench_train
from launch.cli.border import EXIT_COLLAPSED, EXIT_INTERRUPTED, border
from launch.cli.doctor import doctor, token
from launch.cli.evaluate import evaluate, export, report, results
from launch.cli.gate import gate
from launch.cli.measure import judge, metrics
from launch.cli.options import AsJson, Files, prepared_console, refuse_loose_words
from launch.cli.reward import reward_app, score
from launch.cli.tune import tune


class Commands(TyperGroup):
    """Every command runs inside the border: what it raises ends as one sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        with border():
            return super().invoke(ctx)


app = typer.Typer(
    name="addiffusion",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=False,
    help="Train and use an agent that decides, image by image and step by step, how long a diffusion model works.",
)
embedded_app = typer.Typer(no_args_is_help=True, help="The built-in world: its models and how they are trained.")
app.add_typer(embedded_app, name="embedded")
app.add_typer(reward_app, name="reward")
app.add_typer(bench_app, name="bench")
bench_app.command(name="train")(bench_train)
app.add_typer(bank_app, name="bank")
app.command()(score)
app.command()(evaluate)
app.command()(export)
app.command()(report)
app.command()(results)
app.command()(gate)
app.command()(ablate)
app.command()(metrics)
app.command()(judge)
app.command()(tune)
app.command()(doctor)
app.command()(token)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Configuration overrides such as ppo.lr=1.0e-4; `addiffusion config` lists every key.",
        show_default=False,
    ),
]


class EmbeddedDevice(StrEnum):
    """Where embedded models are trained."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class PromptSplit(StrEnum):
    """Disjoint parts of the built-in prompts."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"
    COMPOSITIONAL = "compositional"


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    """Options that belong to no command."""
    if version:
        typer.echo(f"addiffusion {__version__}")
        raise typer.Exit


@app.command()
def train(
    overrides: Overrides = None,
    config: Files = None,
    stop_on_collapse: Annotated[
        bool,
        typer.Option("--stop-on-collapse", help="Save, leave with exit code 3 when an alarm of alarms.stop_on rings."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a policy and compare it with fixed samplers on held-out prompts.

    Everything is written to a new folder (run.dir, by default runs/<UTC time>). `resume=FOLDER` goes on with a run.
    """
    console = prepared_console(as_json=as_json)
    from launch.runtime.console import Stage

    with Stage(console, "checking the configuration"):
        from launch.training.preflight import prepare
        from launch.training.train import run

        plan = prepare(config or [], overrides or [])
    outcome = run(replace(plan, stop_on_collapse=stop_on_collapse), console=console)
    if as_json and outcome.result is not None:
        typer.echo(json.dumps(outcome.result))
    if outcome.collapse is not None:
        raise typer.Exit(EXIT_COLLAPSED)
    if outcome.interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)


@app.command(name="config")
def show_config(
    overrides: Overrides = None,
    config: Files = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of commented YAML.")] = False,
) -> None:
    """Print the resolved configuration; every key stands under its documentation."""
    from launch.configuration.files import load_config
    from launch.configuration.text import to_yaml

    resolved = load_config(config or [], overrides or [])
    if as_json:
        typer.echo(resolved.model_dump_json(indent=2))
    elif sys.stdout.isatty():
        from rich.syntax import Syntax

        Console().print(Syntax(to_yaml(resolved), "yaml", background_color="default"))
    else:
        typer.echo(to_yaml(resolved), nl=False)


@app.command()
def sample(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    overrides: Overrides = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="shipped, or the run, checkpoint or exported folder of a policy; without it: always continue.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the image.")] = 0,
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG file to write.")] = Path("sample.png"),
    scale: Annotated[int, typer.Option(min=1, max=16, help="Whole-number enlargement of the PNG.")] = 1,
    film: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a film strip of all decisions to this PNG.", show_default=False),
    ] = None,
    scores: Annotated[
        bool, typer.Option("--scores", help="Also print what the scorers say of it; they are loaded for that.")
    ] = False,
    config: Files = None,
) -> None:
    """Draw one image and print what the agent did at each step, and the NFE it spent."""
    from launch.runtime.console import Stage
    from launch.runtime.logging_setup import log_to

    refuse_loose_words(prompt, overrides or [])
    console = Console()
    log_to(console)
    with Stage(console, "drawing"):
        from launch.comparing.sample import SampleOrder, draw

        order = SampleOrder(prompt=prompt, seed=seed, out=out, scale=scale, film=film, policy=policy, scores=scores)
        drawn = draw(order, files=config or [], overrides=overrides or [])
    console.print(drawn.decisions)
    console.print(drawn.summary, highlight=False, soft_wrap=True)


@embedded_app.command(name="train")
def embedded_train(
    out: Annotated[Path, typer.Option(help="Folder for the weights; a killed training goes on from what is there.")],
    parts: Annotated[
        list[str] | None, typer.Option("--part", help="Only this part; may be repeated.", show_default=False)
    ] = None,
    device: Annotated[EmbeddedDevice, typer.Option(help="auto takes a GPU where there is one.")] = EmbeddedDevice.AUTO,
    seed: Annotated[int, typer.Option(min=0, help="Root of all randomness.")] = 0,
    scale: Annotated[float, typer.Option(min=0.0001, help="Share of the full training: 0.1 is a tenth.")] = 1.0,
) -> None:
    """Train the models of the built-in world: tokenizer, autoencoder, diffusion model and scorers."""
    from launch.world.training import train_with_progress

    train_with_progress(out, parts=parts, device=device.value, seed=seed, scale=scale, console=Console())


@embedded_app.command(name="card")
def embedded_card(
    weights: Annotated[
        Path | None, typer.Option(help="Weights folder; without it the shipped one.", show_default=False)
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the model card there, e.g. docs/embedded.md, with its pictures beside it."
        ),
    ] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Test prompts per tier for the quality figures.")] = 100,
    curve_prompts: Annotated[int, typer.Option(min=1, help="Test prompts per tier for the curves.")] = 32,
    as_json: AsJson = False,
) -> None:
    """Measure the built-in world again: quality by tier, what steps are worth, scorers, cost. Minutes on two cores."""
    from addiffusion.assets import WEIGHTS_FOLDER
    from evaluation.model_card.plan import CardPlan
    from launch.world.model_card import run_card

    plan = CardPlan(weights=weights or WEIGHTS_FOLDER, prompts_per_tier=prompts, curve_prompts_per_tier=curve_prompts)
    figures = run_card(plan, page=page, console=Console(stderr=as_json))
    if as_json:
        typer.echo(json.dumps(figures))


@embedded_app.command(name="prompts")
def embedded_prompts(
    split: Annotated[PromptSplit, typer.Option(help="compositional has colour-shape pairs that nothing trained on.")],
    count: Annotated[int, typer.Option(min=1, help="How many; tier 1 has few captions and repeats them.")] = 1000,
    tiers: Annotated[
        list[int] | None,
        typer.Option("--tier", min=1, max=3, help="Only this tier; may be repeated.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Root of the draw, as run.seed of a run.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="File to write.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines with prompt_id, tier, split and text.")] = False,
) -> None:
    """Print or write prompts of the built-in benchmark, one per line.

    A FILE that ends in .jsonl gets JSON lines.
    """
    from launch.world.prompts import prompt_lines, write_prompts

    as_json = as_json or (out is not None and out.suffix == ".jsonl")
    lines = prompt_lines(split.value, count=count, tiers=tiers or (), seed=seed, as_json=as_json)
    if out is None:
        typer.echo("\n".join(lines))
    else:
        write_prompts(out, lines)


def main() -> None:
    """Entry point of the console script."""
    app()
