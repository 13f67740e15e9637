"""What a person may ask of `addiffusion serve`: a field is an option of the command line, with its one default."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from addiffusion.assets import SHIPPED_LATENT


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOrder:
    """Who draws, and where requests come in."""

    policy: Annotated[
        str,
        typer.Option(
            metavar="shipped-latent|RUN|PATH|none",
            help="A policy that ships, a run, a checkpoint, an exported folder; none: every image to full length.",
        ),
    ] = SHIPPED_LATENT
    host: Annotated[str, typer.Option(help="Address to listen on; any other than loopback needs an API key.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0 takes a free one.")] = 8000
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File with the API key; else ADDIFFUSION_API_KEY has it, where one is wanted."
        ),
    ] = None
    waiting: Annotated[
        int, typer.Option(min=1, help="Images that may wait for a slot; beyond it requests are told to come again.")
    ] = 128
    grace_s: Annotated[
        float, typer.Option("--grace", min=0, metavar="SECONDS", help="How long a stop waits for images under way.")
    ] = 60.0
