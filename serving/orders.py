"""From the fields of a request to an order that the engine takes."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from uuid import uuid4

from addiffusion.errors import ArgumentError
from addiffusion.pipeline.price import PriceDial, Quality
from addiffusion.setting import Setting
from serving.errors import RefusedError
from serving.image_files import FileStyle
from serving.messages import Order
from serving.model import ServedFacts
from serving.request_models import ImageRequest, checked


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerStyle:
    """How the images of an order are sent back."""

    file: FileStyle
    size: str
    quality: Quality


def style_of(request: ImageRequest, facts: ServedFacts) -> AnswerStyle:
    """How a request wants its images."""
    compression = 100 if request.output_compression is None else request.output_compression
    file = FileStyle(format=request.output_format or "png", compression=compression)
    return AnswerStyle(file=file, size=f"{facts.image_size}x{facts.image_size}", quality=request.quality or "auto")


def order_of(request: ImageRequest, facts: ServedFacts) -> Order:
    """The order of a request.

    Raises:
        RefusedError: a field has a value that this model can't be asked for.
    """
    _check_model(request.model, facts)
    check_size(request.size, facts)
    if request.partial_images and not request.stream:
        raise RefusedError(
            f"partial_images={request.partial_images} needs stream=true: without it there is one answer.",
            param="partial_images",
        )
    seed = secrets.randbelow(2**32) if request.seed is None else request.seed
    return Order(
        request_id=f"img_{uuid4().hex}",
        prompt=checked(request.prompt, "prompt"),
        seeds=tuple(range(seed, seed + (request.n or 1))),
        c_nfe=price_of(
            facts.dial,
            request.num_inference_steps or facts.num_steps,
            speed=request.speed,
            quality=request.quality or "auto",
        ),
        setting=setting_for(
            facts,
            num_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            negative_prompt=request.negative_prompt,
            solver=request.solver,
            max_cost=request.max_cost,
        ),
        full_run=bool(request.full_run),
        deadline_s=request.deadline_s,
        previews=request.partial_images or 0,
        every_decision=bool(request.every_decision and request.stream),
    )


def setting_for(
    facts: ServedFacts,
    *,
    num_steps: int | None,
    guidance_scale: float | None,
    negative_prompt: str | None,
    solver: str | None,
    max_cost: float | None = None,
) -> Setting:
    """The setting of a request's images.

    Args:
        facts: what may be asked for.
        num_steps: of the full run.
        guidance_scale: 1 or less is without guidance.
        negative_prompt: what guidance leads away from; blank is none.
        solver: of the schedule.
        max_cost: most that an image may cost.

    Raises:
        RefusedError: the model can't be sampled so.
    """
    if num_steps is not None and num_steps < facts.least_steps:
        raise RefusedError(
            f"num_inference_steps={num_steps} is less than the {facts.least_steps} that this policy needs: its first "
            f"{facts.least_steps - 1} are forced.",
            param="num_inference_steps",
        )
    if solver is not None and solver not in facts.solvers:
        raise RefusedError(
            f"solver={solver} does not fit this model: give one of {', '.join(facts.solvers)}.", param="solver"
        )
    away = (negative_prompt or "").strip() and checked(negative_prompt or "", "negative_prompt")
    if not facts.guided and (away or (guidance_scale or 0) > 1):
        field = "negative_prompt" if away else "guidance_scale"
        raise RefusedError(f"{field} needs guidance, which this model has none of: leave it out.", param=field)
    return Setting(
        solver=solver,  # pyright: ignore[reportArgumentType] - one of the facts' solvers
        num_steps=num_steps,
        guidance_scale=guidance_scale,
        negative_prompt=away or None,
        max_cost=max_cost,
    )


def price_of(dial: PriceDial, steps: int, *, speed: float | None, quality: Quality) -> float:
    """Price of one NFE by the price dial.

    Args:
        dial: of the policy.
        steps: of the full run.
        speed: instead of a quality; outside what was measured, the nearest that was.
        quality: a point of the dial.

    Raises:
        RefusedError: both are given, or speeds were not measured.
    """
    if speed is None:
        return dial.at_quality(quality)
    if quality != "auto":
        raise RefusedError(
            f"speed={speed:g} and quality={quality} are two points of one dial: give one.", param="speed"
        )
    try:
        least, greatest = dial.speeds(steps) or (speed, speed)
        return dial.at_speed(min(max(speed, least), greatest), steps)
    except ArgumentError as error:
        raise RefusedError(
            "speed needs a policy whose costs were measured (`addiffusion export`), which this one has not: give a "
            "quality.",
            param="speed",
        ) from error


def check_size(size: str | None, facts: ServedFacts) -> None:
    """Refuse images of another size than the model's.

    Raises:
        RefusedError: it is another.
    """
    own = f"{facts.image_size}x{facts.image_size}"
    if size not in {None, "auto", own}:
        raise RefusedError(
            f"size={size} can't be drawn: this model's images are {own}; give that or auto.", param="size"
        )


def _check_model(model: str | None, facts: ServedFacts) -> None:
    if model not in {None, "", facts.model}:
        raise RefusedError(
            f"model={model!a:.80} is not served here: give {facts.model}, or leave it out.", param="model"
        )
