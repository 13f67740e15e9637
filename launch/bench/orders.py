"""What a person may ask of `addiffusion bench`: a field is an option of the command line, with its one default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from addiffusion.assets import SHIPPED_PREVIEWS

PASSES = (0, 1, 2, 3, 4, 6)
STOPS = (5, 10, 20)
FLEETS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOrder:
    """What to measure on what."""

    backbone: Annotated[
        Literal["embedded", "sd15-random", "sdxl-random"],
        typer.Option(help="embedded, or a full-size shape with random weights."),
    ] = "embedded"
    device: Annotated[str, typer.Option(help="torch device; auto takes a GPU where there is one.")] = "auto"
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; a rollout worker has one.")] = 1
    slots: Annotated[
        int | None, typer.Option(min=1, help="Images denoised at once; default: where the network is fastest.")
    ] = None
    size: Annotated[int | None, typer.Option(min=8, help="Pixels per side; default: the model's own.")] = None
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], typer.Option(help="Precision of the network.")] = (
        "float32"
    )
    compile: Annotated[
        Literal["off", "default", "cuda_graphs"], typer.Option(help="torch.compile, or CUDA graphs with it.")
    ] = "off"
    guidance_scale: Annotated[
        float, typer.Option("--guidance", min=0, help="Guidance scale; above 1 a pass is a pair.")
    ] = 3.5
    set_images: Annotated[
        int, typer.Option(min=0, help="Images per slot of the sets that are drawn to their end; 0 leaves them out.")
    ] = 4
    seconds: Annotated[float, typer.Option(min=0.01, help="Least time of each contestant in a round.")] = 1.0
    rounds: Annotated[int, typer.Option(min=1, help="Rounds in which the contestants take turns.")] = 9
    """A machine's moods so hit all of them; ratios are medians of each round's."""
    ticks: Annotated[int, typer.Option(min=1, help="Ticks of the engine whose parts are timed, twice.")] = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishOrder:
    """Which finishes to compare."""

    count: Annotated[int, typer.Option(min=1, help="Held-out prompts to draw.")] = 12
    passes: Annotated[
        tuple[int, ...],
        typer.Option(
            "--passes",
            "-m",
            min=0,
            help=f"Finish passes; may be repeated. Default {' '.join(map(str, PASSES))}.",
            show_default=False,
        ),
    ] = PASSES
    stops: Annotated[
        tuple[int, ...],
        typer.Option(
            "--stop-at",
            min=1,
            help=f"Step of the stop; may be repeated. Default {' '.join(map(str, STOPS))}.",
            show_default=False,
        ),
    ] = STOPS


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineOrder:
    """What to draw on what."""

    backbone: Annotated[
        Literal["embedded", "sd15-random"], typer.Option(help="embedded, or SD 1.5's shape with random weights.")
    ] = "embedded"
    device: Annotated[str, typer.Option(help="torch device; auto takes a GPU where there is one.")] = "auto"
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1
    images: Annotated[int, typer.Option(min=1, help="Images of one call, all at once.")] = 8
    steps: Annotated[int, typer.Option(min=2, help="Steps of each image.")] = 50
    size: Annotated[int | None, typer.Option(min=8, help="Pixels per side; default: the model's own.")] = None
    guidance_scale: Annotated[float, typer.Option("--guidance", min=0, help="Guidance scale.")] = 3.5
    rounds: Annotated[int, typer.Option(min=1, help="Both take turns; the ratio is the median of the rounds.")] = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedOrder:
    """Which policy to ask for which speeds."""

    policy: Annotated[str, typer.Option(metavar="shipped|RUN|PATH", help="A policy with a policy card.")] = (
        SHIPPED_PREVIEWS
    )
    limit: Annotated[int, typer.Option(min=6, help="Held-out prompts, an image each.")] = 60
    speeds: Annotated[tuple[float, ...], typer.Option("--speed", help="Ask for this speed; may be repeated.")] = (
        2.0,
        3.0,
        4.0,
        6.0,
    )
    steps: Annotated[tuple[int, ...], typer.Option("--steps", min=2, help="Of so many steps; may be repeated.")] = (50,)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardOrder:
    """Which scorers to measure."""

    scorers: Annotated[
        Literal["embedded", "pretrained", "random"],
        typer.Option(help="random: the full-size models with random weights, no downloads."),
    ] = "embedded"
    device: Annotated[str, typer.Option(help="torch device of the scorers.")] = "cpu"
    size: Annotated[int | None, typer.Option(min=8, help="Pixels per side; 64 (embedded), else 512.")] = None
    request_images: Annotated[
        int | None, typer.Option(min=1, help="Images a client sends at once; default: a whole pass.")
    ] = None
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each contestant in each round.")] = 1.5
    rounds: Annotated[int, typer.Option(min=1, help="Contestants take turns; ratios are medians over rounds.")] = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOrder:
    """How long to measure a training, and its simulated workers."""

    iterations: Annotated[int, typer.Option(min=1, help="Measured iterations; one more loads the models.")] = 3
    tickets: Annotated[int, typer.Option(min=1, help="Tickets of a simulated worker per iteration.")] = 16
    fleets: Annotated[
        tuple[int, ...],
        typer.Option(
            "--workers",
            min=1,
            help=f"Simulated workers; may be repeated. Default {' '.join(map(str, FLEETS))}.",
            show_default=False,
        ),
    ] = FLEETS
    episode_s: Annotated[
        float | None,
        typer.Option("--episode-seconds", min=0, help="Sleep of a simulated worker per episode; default: as measured."),
    ] = None
    observation_width: Annotated[
        int | None, typer.Option(min=1, help="Width of a simulated episode's observations; default: as measured.")
    ] = None
    decisions: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Mean decisions of a simulated episode; default: as measured. With this, --episode-seconds and "
            "--observation-width no real training is measured first.",
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOrder:
    """How many requests to send to how large servers."""

    images: Annotated[int, typer.Option(min=4, help="Requests of one image, of a contestant at a load.")] = 32
    slots: Annotated[int, typer.Option(min=1, help="Images at once, and of a static batch.")] = 8
    steps: Annotated[int, typer.Option(min=4, help="Of half of the full runs; the others have a fifth less.")] = 50
    clients: Annotated[int, typer.Option(min=1, help="Processes that send them.")] = 2
    loads: Annotated[
        tuple[float, ...],
        typer.Option("--load", min=0.01, help="Arrivals as a share of the policy's capacity; may be repeated."),
    ] = (0.5, 0.8, 1.2)
    quality: Annotated[
        Literal["low", "medium", "high", "auto"], typer.Option(help="Of the requests: a point of the policy's dial.")
    ] = "auto"
    rounds: Annotated[int, typer.Option(min=1, help="Contestants take turns; ratios are medians over rounds.")] = 1
    deployed: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Of a deployed serve.yaml: what Ray Serve adds is measured as well."),
    ] = None
