"""Measures everything that needs a GPU, one part after another, into one JSON file and the tables made of it.

A part that is in the file already is not measured again; one that failed says why there, and is tried again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from rich.console import Console

from scripts.gpu_day.measuring import Size, measure
from scripts.gpu_day.page import put_tables
from scripts.gpu_day.parts import PARTS

_LAST: Final = "denoiser"
"""Takes all the minutes there are, so it is only measured when it is asked for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 where a part has no figures."""
    parser = argparse.ArgumentParser(prog="scripts/gpu_day.sh", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu_day"), help="folder of gpu_day.json (default: gpu_day)")
    parser.add_argument("--part", action="append", choices=PARTS, help=f"may be repeated; default: all but {_LAST}")
    parser.add_argument("--device", default="cuda", help="torch device (default: cuda)")
    parser.add_argument("--tiny", action="store_true", help="smallest sizes, the embedded model: runs on a CPU")
    parser.add_argument("--minutes", type=float, default=8.5, help="after which nothing goes on (default: 8.5)")
    parser.add_argument("--page", type=Path, help="page whose GPU tables are written anew, e.g. docs/performance.md")
    asked = parser.parse_args(arguments)
    console = Console(stderr=True)
    if torch.device(asked.device).type == "cuda" and not torch.cuda.is_available():
        console.print(
            f"--device {asked.device}: torch sees no GPU here. --device cpu --tiny tries every part on a CPU."
        )
        return 2
    size = Size(device=asked.device, tiny=asked.tiny, out=asked.out)
    names = asked.part or [name for name in PARTS if name != _LAST]
    figures = measure(PARTS, names, size, seconds=60 * asked.minutes, console=console)
    if asked.page is not None:
        put_tables(asked.page, figures)
    return int(any("error" in figures[name] for name in names))


if __name__ == "__main__":
    sys.exit(main())
