"""The part of AUTOMATIC1111's API that front ends need: `txt2img`, progress, interrupt, and what there is to choose."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated, Any, Final
from uuid import uuid4

from fastapi import APIRouter, Request
from pydantic import ConfigDict, Field

from serving.disconnects import until_gone
from serving.drawing import Drawing
from serving.errors import CancelledError, RefusedError
from serving.image_files import SAMPLERS, FileStyle, encoded, parameters_of
from serving.jobs import Progress
from serving.messages import Drawn, Order
from serving.model import ServedFacts
from serving.orders import check_size, price_of, setting_for
from serving.request_models import Body, Text, checked

_KARRAS: Final = "karras"
_PREVIEWS: Final = 8
_PNG: Final = FileStyle()


class Txt2ImgRequest(Body):
    """Body of `txt2img`. Front ends send dozens of fields; those that are not here are without effect."""

    model_config = ConfigDict(extra="ignore", strict=False, allow_inf_nan=False)

    prompt: Text
    negative_prompt: Text | None = None
    seed: Annotated[int, Field(ge=-1, lt=2**63)] | None = -1
    """-1 draws one."""
    steps: Annotated[int, Field(ge=2, le=200)] | None = None
    cfg_scale: Annotated[float, Field(ge=0, le=1000)] | None = None
    width: int | None = None
    height: int | None = None
    batch_size: Annotated[int, Field(ge=1, le=10)] | None = 1
    n_iter: Annotated[int, Field(ge=1, le=10)] | None = 1
    sampler_name: str | None = None
    sampler_index: str | None = None
    scheduler: str | None = None
    send_images: bool | None = True


class OptionsRequest(Body):
    """Body of `POST options`: the model, which is the one that is served."""

    model_config = ConfigDict(extra="ignore")

    sd_model_checkpoint: str | None = None


def a1111_routes(drawing: Drawing) -> APIRouter:
    """The routes.

    Args:
        drawing: draws the images.
    """
    router = APIRouter(prefix="/sdapi/v1", tags=["AUTOMATIC1111"])

    @router.post("/txt2img")
    async def txt2img(body: Txt2ImgRequest, request: Request) -> dict[str, Any] | None:
        """Draw images."""
        order = _order_of(body, drawing)
        drawn = await until_gone(request, _drawn(drawing, order))
        return None if drawn is None else await _answer(body, drawing.facts, order, drawn)

    @router.get("/progress")
    async def progress(*, skip_current_image: bool = False) -> dict[str, Any]:
        """Of the oldest call under way."""
        return await _shown(await drawing.progress(preview=not skip_current_image))

    @router.post("/interrupt")
    async def interrupt() -> dict[str, Any]:
        """End all calls under way: they answer with their images as they are."""
        await drawing.interrupt()
        return {}

    _choices(router, drawing)
    return router


def _choices(router: APIRouter, drawing: Drawing) -> None:
    """What there is to choose."""

    @router.get("/samplers")
    async def samplers() -> list[dict[str, Any]]:
        """Solvers that fit the model."""
        return [{"name": name, "aliases": [solver], "options": {}} for name, solver in _fitting(drawing).items()]

    @router.get("/schedulers")
    async def schedulers() -> list[dict[str, Any]]:
        """Where the points of the schedule lie."""
        return [{"name": "automatic", "label": "Automatic"}, {"name": _KARRAS, "label": "Karras"}]

    @router.get("/sd-models")
    async def models() -> list[dict[str, Any]]:
        """The model that is served."""
        name = drawing.facts.model
        return [{"title": name, "model_name": name, "hash": None, "sha256": None, "filename": name, "config": None}]

    @router.get("/options")
    async def options() -> dict[str, Any]:
        """Settings that front ends read."""
        return {"sd_model_checkpoint": drawing.facts.model, "samples_format": "png", "CLIP_stop_at_last_layers": 1}

    @router.post("/options")
    async def set_options(body: OptionsRequest) -> None:
        """Only the model can be chosen, and there is one."""
        if body.sd_model_checkpoint not in {None, drawing.facts.model}:
            raise RefusedError(
                f"sd_model_checkpoint={body.sd_model_checkpoint!a:.80} is not served here: this server has "
                f"{drawing.facts.model}.",
                param="sd_model_checkpoint",
            )


def _fitting(drawing: Drawing) -> dict[str, str]:
    return {name: solver for name, solver in SAMPLERS.items() if solver in drawing.facts.solvers}


def _order_of(body: Txt2ImgRequest, drawing: Drawing) -> Order:
    facts, count = drawing.facts, (body.batch_size or 1) * (body.n_iter or 1)
    if count > 10:
        raise RefusedError(f"batch_size * n_iter = {count} images are too many: ask for 10 at most.", param="n_iter")
    own = facts.image_size
    check_size(f"{body.width or own}x{body.height or own}", facts)
    solver, karras = _solver_of(body, drawing)
    setting = setting_for(
        facts,
        num_steps=body.steps,
        guidance_scale=body.cfg_scale if facts.guided else None,
        negative_prompt=body.negative_prompt if facts.guided else None,
        solver=solver,
    )
    seed = secrets.randbelow(2**32) if body.seed in {None, -1} else int(body.seed or 0)
    return Order(
        request_id=f"txt_{uuid4().hex}",
        prompt=checked(body.prompt, "prompt"),
        seeds=tuple(range(seed, seed + count)),
        c_nfe=price_of(facts.dial, facts.num_steps, speed=None, quality="auto"),
        setting=replace(setting, spacing=_KARRAS) if karras else setting,
        previews=_PREVIEWS,
        by_front_end=True,
    )


def _solver_of(body: Txt2ImgRequest, drawing: Drawing) -> tuple[str | None, bool]:
    """Solver and whether its points lie by Karras, from the names of a front end."""
    wanted = (body.sampler_name or body.sampler_index or "").strip()
    karras = (body.scheduler or "").lower() == _KARRAS or wanted.lower().endswith(f" {_KARRAS}")
    plain = wanted[: -len(_KARRAS)].strip() if wanted.lower().endswith(f" {_KARRAS}") else wanted
    if plain.lower() in {"", "automatic"}:
        return None, karras
    known = _fitting(drawing)
    named = {name.lower(): solver for name, solver in known.items()} | {solver: solver for solver in known.values()}
    if plain.lower() not in named:
        raise RefusedError(
            f"sampler_name={wanted!a:.80} does not fit this model: give one of {', '.join(known)}.",
            param="sampler_name",
        )
    return named[plain.lower()], karras


async def _drawn(drawing: Drawing, order: Order) -> list[Drawn]:
    """The images, all of them unless the call is interrupted."""
    drawn: dict[int, Drawn] = {}
    try:
        async with aclosing(drawing.draw(order)) as outcomes:
            async for outcome in outcomes:
                if isinstance(outcome, Drawn):
                    drawn[outcome.image] = outcome
    except CancelledError:
        pass  # by `interrupt`: what there is has been told
    return [drawn[image] for image in sorted(drawn)]


async def _answer(body: Txt2ImgRequest, facts: ServedFacts, order: Order, drawn: Sequence[Drawn]) -> dict[str, Any]:
    texts = [parameters_of(order, one, facts) for one in drawn]
    files = [
        _text(await asyncio.to_thread(encoded, one.pixels, _PNG, text)) for one, text in zip(drawn, texts, strict=True)
    ]
    info = {
        "prompt": order.prompt,
        "all_prompts": [order.prompt] * len(drawn),
        "negative_prompt": order.setting.negative_prompt or "",
        "seed": order.seeds[0],
        "all_seeds": [one.seed for one in drawn],
        "width": facts.image_size,
        "height": facts.image_size,
        "steps": order.setting.num_steps or facts.num_steps,
        "cfg_scale": facts.guidance_scale if order.setting.guidance_scale is None else order.setting.guidance_scale,
        "sd_model_name": facts.model,
        "infotexts": texts,
        "addiffusion": [{"nfe": one.nfe, "cost": one.cost, "full_cost": one.full_cost} for one in drawn],
    }
    images = files if body.send_images is not False else []
    return {"images": images, "parameters": body.model_dump(), "info": json.dumps(info)}


async def _shown(progress: Progress | None) -> dict[str, Any]:
    """Progress as front ends read it; zeros without a call."""
    share = 0.0 if progress is None else progress.share
    preview = None if progress is None else progress.preview
    state = {
        "skipped": False,
        "interrupted": progress is not None and progress.interrupted,
        "job": "" if progress is None else progress.request_id,
        "job_count": 0 if progress is None else progress.image_count,
        "job_no": 0 if progress is None else progress.drawn_count,
        "sampling_step": 0 if progress is None else progress.step,
        "sampling_steps": 0 if progress is None else progress.num_steps,
    }
    return {
        "progress": share,
        "eta_relative": progress.seconds * (1 - share) / share if progress is not None and share else 0.0,
        "state": state,
        "current_image": None if preview is None else _text(await asyncio.to_thread(encoded, preview, _PNG)),
        "textinfo": None,
    }


def _text(file: bytes) -> str:
    return base64.b64encode(file).decode("ascii")
