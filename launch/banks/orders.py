"""What a person may ask of `addiffusion bank build`: a field is an option of the command line, with its one default."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from addiffusion.embedded.world import Split

Folder = Annotated[Path, typer.Argument(metavar="BANK", help="Folder of the bank.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class BankOrder:
    """A bank to build, or to go on with."""

    folder: Folder
    split: Annotated[Split, typer.Option(help="train has the very images that `train` trains on.")] = "train"
    count: Annotated[
        int | None, typer.Option(min=1, help="Prompts, one seed each; without it prompts.train_count.")
    ] = None
