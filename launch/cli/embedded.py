"""Commands of the built-in world: `embedded train`, `embedded card`, `embedded prompts`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from addiffusion.embedded.world import Split
from launch.cli.options import AsJson
from launch.world.orders import CardOrder


def embedded_train(
    *,
    out: Annotated[Path, typer.Option(help="Folder for the weights; a killed training goes on from what is there.")],
    parts: Annotated[tuple[str, ...] | None, typer.Option("--part", help="Only this part; may be repeated.")] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="auto takes a GPU where there is one.")
    ] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Root of all randomness.")] = 0,
    scale: Annotated[float, typer.Option(min=0.0001, help="Share of the full training: 0.1 is a tenth.")] = 1.0,
) -> None:
    """Train the models of the built-in world: tokenizer, autoencoder, diffusion model and scorers."""
    from launch.world.training import train_with_progress

    train_with_progress(out, parts=parts, device=device, seed=seed, scale=scale, console=Console())


def embedded_card(order: CardOrder, *, as_json: AsJson = False) -> None:
    """Measure the built-in world again: quality by tier, what steps are worth, scorers, cost. Minutes on two cores."""
    from addiffusion.assets import WEIGHTS_FOLDER
    from evaluation.model_card.plan import CardPlan
    from launch.world.model_card import run_card

    plan = CardPlan(
        weights=order.weights or WEIGHTS_FOLDER,
        prompts_per_tier=order.prompts,
        curve_prompts_per_tier=order.curve_prompts,
    )
    figures = run_card(plan, page=order.page, console=Console(stderr=as_json))
    if as_json:
        typer.echo(json.dumps(figures))


def embedded_prompts(
    *,
    split: Annotated[Split, typer.Option(help="compositional has colour-shape pairs that nothing trained on.")],
    count: Annotated[int, typer.Option(min=1, help="How many; tier 1 has few captions and repeats them.")] = 1000,
    tiers: Annotated[
        tuple[int, ...], typer.Option("--tier", min=1, max=3, help="Only this tier; may be repeated.")
    ] = (),
    seed: Annotated[int, typer.Option(min=0, help="Root of the draw, as run.seed of a run.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="File to write.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines with prompt_id, tier, split and text.")] = False,
) -> None:
    """Print or write prompts of the built-in benchmark, one per line.

    A FILE that ends in .jsonl gets JSON lines.
    """
    from launch.world.prompts import prompt_lines, write_prompts

    as_json = as_json or (out is not None and out.suffix == ".jsonl")
    lines = prompt_lines(split, count=count, tiers=tiers, seed=seed, as_json=as_json)
    if out is None:
        typer.echo("\n".join(lines))
    else:
        write_prompts(out, lines)
