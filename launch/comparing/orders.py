"""What a person may ask of the commands of this room: a field is an option of the command line, with its one default.

Light: the command line imports it for its help.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from addiffusion.assets import POLICY_FOLDERS, SHIPPED, SHIPPED_PREVIEWS

BEST_OF = 8
"""Seeds of the random search, where nobody says how many."""
HELD_OUT = 300
"""Prompts of a comparison, where nobody says how many."""
ORACLES = ("reward", "clip")
METRICS = ("clip",)
_SHIPPED = ", ".join(POLICY_FOLDERS)

Policy: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="shipped|RUN|PATH",
        help=f"A policy that ships ({_SHIPPED}), a run, a checkpoint, an exported folder.",
    ),
]
Samplers: TypeAlias = Annotated[
    tuple[str, ...] | None,
    typer.Option(
        "--sampler",
        metavar="SOLVER-STEPS[@GUIDANCE]",
        help="Static sampler such as dpm++2m-20, or ddim-20@3.5 at a guidance scale of its own; may be repeated.",
    ),
]
Policies: TypeAlias = Annotated[
    tuple[str, ...],
    typer.Option(
        "--policy",
        metavar="shipped|RUN|PATH",
        help=f"A policy that ships ({_SHIPPED}), a run, a checkpoint, an exported folder; may be repeated, for a table "
        "over policies such as one recipe's seeds.",
    ),
]
Guidances: TypeAlias = Annotated[
    tuple[float, ...],
    typer.Option(
        "--guidance", min=0.0, help="Compare at this guidance scale; may be repeated, for a table over settings."
    ),
]
StepCounts: TypeAlias = Annotated[
    tuple[int, ...],
    typer.Option("--steps", min=2, help="Compare at so many steps of the schedule; may be repeated, likewise."),
]
Prices: TypeAlias = Annotated[
    tuple[float, ...],
    typer.Option("--price", min=0.0, help="Ask the policy at this price of an NFE, too; may be repeated."),
]
Without: TypeAlias = Annotated[
    tuple[str, ...],
    typer.Option(
        "--without",
        metavar="ACTION[+ACTION]",
        help="Ask the policy without this action, such as refine, too, or without several; may be repeated.",
    ),
]
HeldOutPrompts: TypeAlias = Annotated[int, typer.Option(min=6, help="Held-out prompts.")]
WhereImagesLie: TypeAlias = Annotated[
    Path, typer.Option(metavar="FOLDER", help="Where images lie; an interrupted run goes on from there.")
]
PageOfSection: TypeAlias = Annotated[Path, typer.Option(metavar="FILE", help="Page whose section is written.")]
BestOf: TypeAlias = Annotated[int, typer.Option(min=0, help="Random search over so many seeds; 0: none.")]
Handmade: TypeAlias = Annotated[
    tuple[str, ...],
    typer.Option(
        "--handmade", metavar="NAME", help="Hand-made opponent such as ddim-20:guidance-to-10; may be repeated."
    ),
]
WithLiterature: TypeAlias = Annotated[
    bool, typer.Option(help="Self-attention guidance, Attend-and-Excite and distilled models, where at hand.")
]
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
        typer.Argument(metavar="RUN", help=f"{_SHIPPED}, or a run, checkpoint or exported folder."),
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
            help=f"{_SHIPPED}, or a policy's run, checkpoint or folder; without it: always continue.",
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
class EvaluateOrder:
    """What to compare, on what, and where to put it."""

    policies: Policies = (SHIPPED,)
    prompts: Annotated[
        str,
        typer.Option(
            metavar="SOURCE",
            help="embedded/test (or validation, compositional), or a prompt file; by default the test split of what "
            "the policy was trained on.",
        ),
    ] = ""
    limit: Annotated[int, typer.Option(min=1, help="Prompts.")] = HELD_OUT
    repeats: Annotated[
        int, typer.Option("--seeds", min=1, help="Images per prompt; a prompt's images are averaged first.")
    ] = 1
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Default evaluations/<UTC time>; one that exists is gone on with."),
    ] = None
    samplers: Samplers = None
    """None: the usual ones."""
    prices: Prices = ()
    without: Without = ()
    stops: Annotated[int, typer.Option(min=0, help="Steps at which all images are stopped, for the oracle.")] = 9
    oracles: Annotated[
        tuple[str, ...],
        typer.Option(
            "--oracle",
            metavar="SCORE",
            help=f"Oracle stop by this score; may be repeated. Default {' and '.join(ORACLES)}.",
            show_default=False,
        ),
    ] = ORACLES
    bank: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Trajectory bank of these prompts, for an exact oracle.")
    ] = None
    best_of: BestOf = BEST_OF
    handmade: Handmade = ()
    lcm_lora: Annotated[Path | None, typer.Option(metavar="FILE", help="LCM-LoRA of this model, for LCM-LoRA-4.")] = (
        None
    )
    sdxl_turbo: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="SDXL-Turbo's pipeline, for SDXL-Turbo-4.")
    ] = None
    literature: WithLiterature = True
    guidance: Guidances = ()
    steps: StepCounts = ()
    films: Annotated[int, typer.Option(min=0, help="Images whose every decision is kept for the report.")] = 24
    margin: Annotated[
        float,
        typer.Option(min=0.0001, max=0.5, help="Largest loss that does not matter, share of the full run's mean."),
    ] = 0.01
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Agent, controls, oracle, and DDIM and DPM-Solver++ (of a flow: Euler) at the agent's NFE."
        ),
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultsOrder:
    """The comparison of the results page, and where that page goes."""

    policy: Policy = SHIPPED
    limit: HeldOutPrompts = HELD_OUT
    repeats: Annotated[int, typer.Option("--seeds", min=1, help="Images per prompt.")] = 3
    samplers: Samplers = None
    best_of: BestOf = BEST_OF
    literature: WithLiterature = True
    comparison: WhereImagesLie = Path("evaluations/results")
    page: Annotated[Path, typer.Option(metavar="FILE", help="Page to write.")] = Path("docs/results.md")

    def evaluation(self) -> EvaluateOrder:
        """The comparison alone."""
        return EvaluateOrder(
            policies=(self.policy,),
            limit=self.limit,
            repeats=self.repeats,
            out=self.comparison,
            samplers=self.samplers,
            best_of=self.best_of,
            literature=self.literature,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsOrder:
    """Which policies to measure at which settings, and the page that says how well they hold."""

    policies: Policies = (SHIPPED_PREVIEWS,)
    limit: HeldOutPrompts = 120
    guidance: Guidances = (1.5, 2.0, 3.5, 5.0)
    steps: StepCounts = (20, 50)
    without: Without = ()
    comparison: WhereImagesLie = Path("evaluations/settings")
    page: PageOfSection = Path("docs/results.md")

    def evaluation(self) -> EvaluateOrder:
        """The comparisons alone."""
        return EvaluateOrder(
            policies=self.policies,
            limit=self.limit,
            guidance=self.guidance,
            steps=self.steps,
            without=self.without,
            out=self.comparison,
            stops=0,
            films=0,
            quick=True,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ParetoOrder:
    """Who saves by hand, and the page that says how well."""

    policy: Policy = SHIPPED
    limit: HeldOutPrompts = HELD_OUT
    prices: Prices = ()
    handmade: Handmade = ()
    """None given: those of the page."""
    samplers: Samplers = ("ddim-10", "ddim-15", "ddim-20", "ddim-30", "dpm++2m-10", "dpm++2m-15", "dpm++2m-20")
    comparison: WhereImagesLie = Path("evaluations/pareto")
    page: PageOfSection = Path("docs/results.md")

    def evaluation(self, handmade: tuple[str, ...]) -> EvaluateOrder:
        """The comparison alone, with these opponents."""
        return EvaluateOrder(
            policies=(self.policy,),
            limit=self.limit,
            out=self.comparison,
            samplers=self.samplers,
            prices=self.prices,
            handmade=handmade,
            stops=0,
            oracles=(),
            films=0,
            quick=True,
        )


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
