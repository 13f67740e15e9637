"""`addiffusion export`: a policy in a small folder, with a policy card: what it was trained for and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from rich.console import Console

from addiffusion import AdaptivePipelineOutput, Policy
from addiffusion.config import Config, ObservationSection
from addiffusion.pipeline.adaptive import EMBEDDED
from addiffusion.pipeline.card import CurvePoint, PolicyCard, weight_digest
from addiffusion.pipeline.fit import network_of, span
from addiffusion.policy_files import TrainedPolicy, export_policy, read_policy
from addiffusion.prompts import load_prompts
from addiffusion.records import SCORE_NAMES, Prompt, ScoreRequest
from addiffusion.seeds import derive_seed
from addiffusion.threads import torch_threads
from launch.comparing.orders import ExportOrder
from launch.runtime.console import UNSEEN, Stage
from launch.runtime.pipeline import pipeline_of

PRICES = 5
"""Points of the curve of a policy that knows more than one price."""
BEYOND = (2.0, 5.0, 20.0)
"""Further points, in greatest prices of the training."""
EMBEDDED_PROMPTS = 16
"""Validation prompts behind each point where nobody says how many: half a minute of one core."""


def export(order: ExportOrder, console: Console = UNSEEN) -> TrainedPolicy:
    """Write policy, configuration and policy card.

    Raises:
        UsageError: the policy can't be read, does not fit the model it was trained on, or the folder can't be written.
    """
    trained = read_policy(order.run)
    card = make_card(Policy.of(trained), order, console)
    exported = export_policy(trained, order.out)
    card.write(order.out)
    return exported


def make_card(policy: Policy, order: ExportOrder, console: Console = UNSEEN) -> PolicyCard:
    """The card of a policy, with its curve measured on the model it was trained on.

    Raises:
        UsageError: the model can't be loaded, or does not fit.
    """
    config = policy.trained_with
    embedded = config.backbone.kind == "embedded"
    count = (EMBEDDED_PROMPTS if embedded else 0) if order.prompts is None else order.prompts
    curve: tuple[CurvePoint, ...] = ()
    digest: tuple[float, ...] = ()
    if count:
        with Stage(console, "loading the model"):
            pipe = pipeline_of(policy)
            prompts = load_prompts(config.prompts, split="validation", count=count, seed=config.run.seed)
        digest = weight_digest(network_of(pipe))
        points = list(product(dict.fromkeys(config.sampler.step_counts), prices(config)))
        shown = Stage(console, "measuring the cost of each price", len(points), headline="")
        with torch_threads(1), shown:  # as a rollout worker
            curve = tuple(_point(pipe, prompts, price, steps, shown) for steps, price in points)
    return PolicyCard(
        backbone=EMBEDDED if embedded else str(config.backbone.path),
        digest=digest,
        full_cost=float(config.sampler.num_steps),
        curve=curve,
        prompt_count=count,
        facts=facts_of(config),
        licence=order.licence,
    )


def prices(config: Config) -> list[float]:
    """Prices a policy was trained at, evenly spaced over their range by ratio, and some beyond.

    Phi has the logarithm of the price, which policies carry on past the greatest they have seen: to fewer passes.
    """
    known = config.reward.c_nfe_range
    if known is None:
        return [config.reward.c_nfe]
    return [float(one) for one in (*np.geomspace(*known, PRICES).round(6), *(known[1] * one for one in BEYOND))]


def facts_of(config: Config) -> dict[str, str]:
    """What a policy was trained for, as readers want it."""
    backbone, sampler, reward = config.backbone, config.sampler, config.reward
    return {
        "model": EMBEDDED if backbone.path is None else f"{backbone.path} ({backbone.kind})",
        "guidance scale": span(backbone.guidance_scales),
        "solver": sampler.solver,
        "steps of the full run": span(sampler.step_counts),
        "forced steps": str(sampler.warmup_steps),
        "finish": f"{sampler.finish_steps} passes of {sampler.finish_solver}",
        "observation": _seen(config.observation),
        "actions": ", ".join(config.policy.actions),
        "reward": f"{reward.preset}, scored by the {config.scorers.kind} scorers",
        "price of one NFE": span(reward.prices),
        "prompts": config.prompts.source,
    }


def _seen(section: ObservationSection) -> str:
    if not section.previews:
        return section.kind
    shares = ", ".join(f"{share:g}" for share in section.previews)
    return f"{section.kind}, scores of a preview at {shares} of the schedule"


def _point(pipe: Any, prompts: Sequence[Prompt], price: float, steps: int, shown: Stage) -> CurvePoint:
    size = pipe.policy.trained_with.backbone.image_size
    out: AdaptivePipelineOutput = pipe(
        [prompt.text for prompt in prompts],
        generator=[torch.Generator().manual_seed(derive_seed("export", prompt.prompt_id)) for prompt in prompts],
        c_nfe=price,
        num_inference_steps=steps,
        height=size,
        width=size,
    )
    shown.advance()
    return CurvePoint(c_nfe=price, cost=float(np.mean(out.cost)), steps=steps, scores=_scores(pipe, prompts, out))


def _scores(pipe: Any, prompts: Sequence[Prompt], out: AdaptivePipelineOutput) -> dict[str, float]:
    """Mean scores of the images, where the policy's own scorers are loaded anyway."""
    if pipe.scoring is None:
        return {}
    images = np.stack([np.asarray(image) for image in out.images])
    reply = pipe.scoring.score(ScoreRequest(images=images, prompts=tuple(prompt.text for prompt in prompts)))
    return {name: float(np.nanmean(reply.values[:, column])) for column, name in enumerate(SCORE_NAMES)}
