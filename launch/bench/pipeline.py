"""`addiffusion bench pipeline`: a pipeline led by a policy against the stock one, at equal images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from rich.console import Console

from addiffusion import AdaptivePipeline, Policy
from addiffusion.actions import Action
from addiffusion.config import BackboneSection, Config
from addiffusion.memory import keep_freed_memory
from addiffusion.observation.layout import latent_layout
from addiffusion.pipeline.adaptive import EMBEDDED
from addiffusion.threads import torch_threads
from evaluation.tables import Table
from launch.bench.orders import PipelineOrder
from launch.bench.rounds import shown_turns
from launch.runtime.console import UNSEEN, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """Seconds of one call."""

    whole: float
    outside: float
    """Of the network's passes."""


def bench_pipeline(order: PipelineOrder, console: Console = UNSEEN) -> dict[str, Any]:
    """Seconds per image of both, medians of each round's overhead, and what was decoded before the end.

    The policy observes at every step by the denoiser's features and always goes on, so both draw the same images by as
    many passes: what the led one takes longer is what it costs to be led. Passes differ from call to call by more than
    that, so what is outside of them is told by itself too.

    Raises:
        ConfigError: the device is not available.
    """
    with Stage(console, "loading the model"):
        pipe = _pipeline(order)
    if pipe.device.type == "cpu":
        keep_freed_memory()  # for both: docs/pipeline.md says what a script gains by it
    policy = _going_on(pipe, order)
    given: dict[str, Any] = {
        "num_images_per_prompt": order.images,
        "num_inference_steps": order.steps,
        "guidance_scale": order.guidance_scale,
        "height": order.size,
        "width": order.size,
        "output_type": "np",
    }

    def stock() -> Any:
        return pipe("a red circle and a blue square", **given, policy=None, generator=_seeded())

    def led() -> Any:
        return pipe("a red circle and a blue square", **given, policy=policy, generator=_seeded(), slots=order.images)

    with torch_threads(order.threads):
        with _decodes_counted(pipe) as counted:
            found = led()
        difference = float(np.abs(found.images - stock().images).max())
        contestants = {"stock": partial(_timed, stock, pipe), "led": partial(_timed, led, pipe)}
        took = shown_turns(contestants, order.rounds, console)
    whole, outside = (
        {name: np.array([getattr(turn, part) for turn in turns]) for name, turns in took.items()}
        for part in ("whole", "outside")
    )
    return {
        "backbone": order.backbone,
        "device": str(pipe.device),
        "threads": order.threads,
        "images": order.images,
        "steps": order.steps,
        "size": found.images.shape[1],
        "stock_s_per_image": float(np.median(whole["stock"])) / order.images,
        "led_s_per_image": float(np.median(whole["led"])) / order.images,
        "overhead_frac": float(np.median(whole["led"] / whole["stock"])) - 1,
        "outside_frac": float(np.median(outside["led"] - outside["stock"]) / np.median(whole["stock"])),
        "largest_difference": difference,
        "decoded_on_the_way_count": counted[0] - order.images,
    }


def table_of(result: dict[str, Any]) -> Table:
    """The result for people."""
    images = f"{result['images']} images of {result['size']} px and {result['steps']} steps"
    title = f"{result['backbone']}, {result['device']}, {images}"
    table = Table(title=title, box=None, header_style="bold", title_justify="left")
    table.add_column("pipeline")
    table.add_column("s/image", justify="right")
    table.add_row("stock diffusers pipeline", f"{result['stock_s_per_image']:.3f}")
    table.add_row("led by a policy that goes on", f"{result['led_s_per_image']:.3f}")
    table.add_row("overhead (median of rounds)", f"{100 * result['overhead_frac']:+.1f} %")
    table.add_row("of it outside the network", f"{100 * result['outside_frac']:+.1f} %")
    return table


def _pipeline(order: PipelineOrder) -> Any:
    if order.backbone == EMBEDDED:
        pipe: Any = AdaptivePipeline.from_pretrained(EMBEDDED)
    else:
        from addiffusion.backbones.random_weights import random_backbone  # noqa: PLC0415 - only benchmarks need it

        section = BackboneSection(kind="stable_diffusion", path=order.backbone, device=order.device)
        pipe = AdaptivePipeline.from_pipe(random_backbone("sd15-random", section).pipeline)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _going_on(pipe: Any, order: PipelineOrder) -> Policy:
    """An untrained policy of the usual size, by the pipeline's own solver, that always continues."""
    config = Config.model_validate(
        {
            "backbone": {"kind": "stable_diffusion", "path": order.backbone, "guidance_scale": order.guidance_scale},
            "sampler": {"solver": "pipeline", "num_steps": order.steps, "warmup_steps": 1},
            "observation": {"kind": "latent"},
            "reward": {"preset": "paired", "credit": "final"},
        }
    )
    unet = pipe.unet.config
    layout = latent_layout(
        middle_width=unet.block_out_channels[-1],
        text_width=unet.cross_attention_dim,
        timestep_width=config.observation.timestep_width,
    )
    policy = Policy(layout.width, config.model_dump(mode="json")).eval()
    head: Any = policy.network.layers[-1]
    with torch.no_grad():
        head.bias[Action.CONTINUE] = 50.0
    return policy


@contextmanager
def _decodes_counted(pipe: Any) -> Iterator[list[int]]:
    """Images that the autoencoder decodes in the block."""
    counted, decode = [0], pipe.vae.decode

    def counting(z: Any, *arguments: Any, **named: Any) -> Any:
        counted[0] += len(z)
        return decode(z, *arguments, **named)

    pipe.vae.decode = counting
    try:
        yield counted
    finally:
        del pipe.vae.decode


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _timed(draw: Callable[[], Any], pipe: Any) -> Took:
    """Seconds of the processor, which no neighbour on it can lengthen; where a GPU works, of the clock."""
    on_cpu = pipe.device.type == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter

    def now() -> float:
        if not on_cpu:
            torch.cuda.synchronize(pipe.device)
        return clock()

    begun: list[float] = []
    passes: list[float] = []
    before = pipe.unet.register_forward_pre_hook(lambda *_: begun.append(now()))
    after = pipe.unet.register_forward_hook(lambda *_: passes.append(now() - begun[-1]))
    try:
        start = now()
        draw()
        whole = now() - start
    finally:
        before.remove()
        after.remove()
    return Took(whole=whole, outside=whole - sum(passes))
