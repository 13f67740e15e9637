"""What a person may ask of `addiffusion embedded card`: a field is an option of the command line, with its default."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True, slots=True, kw_only=True)
class CardOrder:
    """Which weights to measure, on how many prompts, and where the card goes."""

    weights: Annotated[Path | None, typer.Option(help="Weights folder; without it the shipped one.")] = None
    page: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the model card there, e.g. docs/embedded.md, with its pictures beside it."
        ),
    ] = None
    prompts: Annotated[int, typer.Option(min=1, help="Test prompts per tier for the quality figures.")] = 100
    curve_prompts: Annotated[int, typer.Option(min=1, help="Test prompts per tier for the curves.")] = 32
