"""What a person may ask of the commands of this room: a field is an option of the command line, with its one default.

Light: the command line imports it for its help.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from launch.comparing.comparison_orders import NAMES_OF_SHIPPED

METRICS = ("clip",)

Prompts: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="A prompt per line, in the order of file names; a comparison's folder knows them."
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOrder:
    """Which policy to write where, and how well to measure it."""

    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help=f"{NAMES_OF_SHIPPED}, or a run, checkpoint or exported folder."),
    ]
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder to write.")]
    prompts: Annotated[
        int | None,
        typer.Option(
            min=0, help="Validation prompts behind each price of the policy card; default 16 on embedded, else 0."
        ),
    ] = None
    licence: Annotated[str, typer.Option(help="Licence of the policy, as the hub names it.")] = "apache-2.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleOrder:
    """What to draw, and where to put it."""

    prompt: Annotated[str, typer.Argument(help="What to draw.")]
    policy: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help=f"{NAMES_OF_SHIPPED}, or a policy's run, checkpoint or folder; without it: always continue.",
        ),
    ] = None
    seed: Annotated[int, typer.Option(min=0, help="Seed of the image.")] = 0
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG file to write.")] = Path("sample.png")
    scale: Annotated[int, typer.Option(min=1, max=16, help="Whole-number enlargement of the PNG.")] = 1
    film: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a film strip of all decisions to this PNG.")
    ] = None
    scores: Annotated[
        bool, typer.Option("--scores", help="Also print what the scorers say of it; they are loaded for that.")
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOrder:
    """Which page to write."""

    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run, or a comparison of `evaluate`.")]
    comparison: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Comparison to show beside the run.")] = None
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="HTML file; default report.html in the folder.")
    ] = None
    films: Annotated[int, typer.Option(min=0, help="Held-out prompts to draw as film strips of a run.")] = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOrder:
    """Which gate, and on what."""

    name: Annotated[
        Literal["g0", "g1", "g2", "g3"],
        typer.Argument(help="g0 memory, g1 training, g2 beats DDIM-20, g3 equals DDIM-50."),
    ]
    folder: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="g1: a run; g2, g3: a comparison. Without it one is made."),
    ] = None
    longest_s: Annotated[float, typer.Option("--longest", min=0.001, help="g1: seconds an iteration may take.")] = 60.0
    limit: Annotated[int, typer.Option(min=6, help="g2, g3 without a folder: prompts.")] = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class AblateOrder:
    """Which study, and under what."""

    study: Annotated[str, typer.Argument(metavar="STUDY", help="A study that ships, or a YAML file.")]
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder; runs/ablate-<study> by default.")
    ] = None
    seeds: Annotated[int, typer.Option(min=1, help="Trainings per variant.")] = 1
    bank: Annotated[
        Path | None, typer.Option(metavar="BANK", help="Start every variant from this trajectory bank.")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsOrder:
    """What to measure."""

    images: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of images.")]
    metrics: Annotated[
        tuple[str, ...],
        typer.Option(
            "--metric",
            "-m",
            help=f"May be repeated; default {' and '.join(METRICS)}. A wrong one lists all.",
            show_default=False,
        ),
    ] = METRICS
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Images to compare with: as a set (fid, kid, cmmd, fd_dino), or by name (ssim)."
        ),
    ] = None
    prompts: Prompts = None
    inception: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="torch-fidelity's InceptionV3 weights for fid, kid, inception_score; downloaded."
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeOrder:
    """Who is judged, by whom."""

    folders: Annotated[tuple[Path, ...], typer.Argument(metavar="FOLDER...", help="Reference first.")]
    base_url: Annotated[str, typer.Option(help="OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1.")]
    model: Annotated[str, typer.Option(help="Vision-language model at that endpoint.")]
    prompts: Prompts = None
    verdicts: Annotated[Path, typer.Option(help="Kept here and not asked again.")] = Path("verdicts.jsonl")
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many images.")] = None
