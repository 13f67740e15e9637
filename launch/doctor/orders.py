"""What a person may ask of `addiffusion doctor`: a field is an option of the command line, with its one default."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorOrder:
    """What to look at besides this machine."""

    cluster_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also check this yaml of `ray up`, e.g. cluster.yaml.")
    ] = None
    smoke: Annotated[bool, typer.Option(help="End with a tiny run of everything.")] = True
