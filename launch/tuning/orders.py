"""What a person may ask of `addiffusion tune`: a field is an option of the command line, with its one default."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from addiffusion.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneOrder:
    """A study to run, or to go on with.

    Raises:
        ConfigError: neither a bank nor live trainings, or both.
    """

    study: Annotated[Path, typer.Argument(metavar="STUDY", help="YAML file, e.g. configs/studies/balanced.yaml.")]
    bank: Annotated[Path | None, typer.Option(metavar="BANK", help="Trajectory bank that trials are replayed on.")] = (
        None
    )
    live: Annotated[bool, typer.Option("--live", help="Train trials live instead: minutes each.")] = False
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder; runs/tune-<study> by default.")
    ] = None
    concurrent: Annotated[int, typer.Option(min=1, help="Trials at once, each on one CPU.")] = 1

    def __post_init__(self) -> None:
        if (self.bank is None) != self.live:
            raise ConfigError("tune needs either --bank BANK (see `addiffusion bank build`) or --live.")

    @property
    def folder(self) -> Path:
        """Where the study lies."""
        return self.out or Path("runs") / f"tune-{self.study.stem}"
