"""What a person may ask of comparisons: a field is an option of the command line, with its one default.

Light: the command line imports it for its help.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from addiffusion.assets import POLICY_FOLDERS, SHIPPED, SHIPPED_PREVIEWS

BEST_OF = 8
"""Seeds of the random search, where nobody says how many."""
HELD_OUT = 300
"""Prompts of a comparison, where nobody says how many."""
ORACLES = ("reward", "clip")
NAMES_OF_SHIPPED = ", ".join(POLICY_FOLDERS)

Policy: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="shipped|RUN|PATH",
        help=f"A policy that ships ({NAMES_OF_SHIPPED}), a run, a checkpoint, an exported folder.",
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
        help=f"A policy that ships ({NAMES_OF_SHIPPED}), a run, a checkpoint, an exported folder; may be repeated, for "
        "a table over policies such as one recipe's seeds.",
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
    """What a policy reaches at each price, who saves by hand, and the page that says how well."""

    policy: Policy = SHIPPED_PREVIEWS
    limit: HeldOutPrompts = HELD_OUT
    prices: Prices = (1.0, 0.2, 0.1, 0.0126, 0.0063)
    handmade: Handmade = ()
    """None given: those of the page."""
    samplers: Samplers = tuple(
        f"{solver}-{steps}@3.5" for solver in ("ddim", "dpm++2m", "unipc2") for steps in (6, 8, 10, 12, 15, 18, 25)
    )
    """At the guidance scale that is best for them."""
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
