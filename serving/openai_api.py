"""OpenAI's images API: `POST /v1/images/generations` and `GET /v1/models`."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from numpy.typing import NDArray
from starlette.responses import JSONResponse

from serving.disconnects import until_gone
from serving.drawing import Drawing
from serving.error_shape import error_object
from serving.errors import NoSuchError, RequestError
from serving.image_files import FileStyle, encoded, parameters_of
from serving.messages import Decided, Drawn, Order, Outcome, Steer
from serving.orders import AnswerStyle, order_of, style_of
from serving.request_models import Body, ImageRequest

_MASK = FileStyle()


class SteerRequest(Body):
    """Body of `POST /v1/images/{request_id}/steer`."""

    image: int = 0
    """Which image of the request."""
    action: Literal["stop", "continue"]
    """Stop at its next decision, or go on to the end of the schedule whatever the policy says."""


def openai_routes(drawing: Drawing) -> APIRouter:
    """The routes.

    Args:
        drawing: draws the images.
    """
    router = APIRouter(prefix="/v1", tags=["OpenAI"])

    @router.post("/images/generations", response_model=None)
    async def generate(body: ImageRequest, request: Request) -> Response:
        """Draw images."""
        order, style = order_of(body, drawing.facts), style_of(body, drawing.facts)
        answer = Answer(drawing, order, style)
        headers = {"X-Request-Id": order.request_id}
        if not body.stream:
            whole = await until_gone(request, answer.whole())
            return JSONResponse(whole, headers=headers)
        outcomes = drawing.draw(order)
        await anext(outcomes)  # what is refused is refused by its status
        events = answer.events(outcomes)
        return StreamingResponse(
            events, media_type="text/event-stream", headers={**headers, "Cache-Control": "no-store"}
        )

    @router.post("/images/{request_id}/steer", status_code=202)
    async def steer(request_id: str, body: SteerRequest) -> dict[str, bool]:
        """Override the policy in one image of a request that is under way."""
        await drawing.steer(Steer(request_id=request_id, image=body.image, action=body.action))
        return {"accepted": True}

    @router.get("/models")
    async def models() -> dict[str, Any]:
        """The model that is served, and what may be asked of it."""
        return {"object": "list", "data": [_model(drawing)]}

    @router.get("/models/{name}")
    async def model(name: str) -> dict[str, Any]:
        """One model."""
        if name != drawing.facts.model:
            raise NoSuchError(f"There is no model {name!a:.80}: this server has {drawing.facts.model}.", param="model")
        return _model(drawing)

    return router


class Answer:
    """What a request is answered with."""

    def __init__(self, drawing: Drawing, order: Order, style: AnswerStyle) -> None:
        self._drawing, self._order, self._style = drawing, order, style
        self._common = {
            "size": style.size,
            "quality": style.quality,
            "background": "opaque",
            "output_format": style.file.format,
        }

    async def whole(self) -> dict[str, Any]:
        """All images in one object.

        Raises:
            RequestError: there are none.
        """
        drawn: dict[int, Drawn] = {}
        async with aclosing(self._drawing.draw(self._order)) as outcomes:
            async for outcome in outcomes:
                if isinstance(outcome, Drawn):
                    drawn[outcome.image] = outcome
        images = [drawn[image] for image in sorted(drawn)]
        data = [{"b64_json": await self._file(one), "addiffusion": record_of(one)} for one in images]
        return {"created": int(time.time()), "data": data, **self._common, "usage": _usage(images)}

    async def events(self, outcomes: AsyncGenerator[Outcome]) -> AsyncGenerator[bytes]:
        """Server-sent events. One that begins an error ends them."""
        async with aclosing(outcomes):
            try:
                async for outcome in outcomes:
                    for event in await self._events(outcome):
                        yield _sent(event)
            except RequestError as error:
                yield _sent({"type": "error", "error": error_object(error)})

    async def _events(self, outcome: Outcome) -> list[dict[str, Any]]:
        common = {"created_at": int(time.time()), **self._common}
        match outcome:
            case Decided():
                return await self._decided(outcome, common)
            case Drawn():
                completed = {
                    "type": "image_generation.completed",
                    "b64_json": await self._file(outcome),
                    "image_index": outcome.image,
                    "usage": _usage([outcome]),
                    "addiffusion": record_of(outcome),
                }
                return [{**completed, **common}]
            case _:
                return []

    async def _decided(self, decided: Decided, common: Mapping[str, Any]) -> list[dict[str, Any]]:
        said = {
            "b64_json": _text(await asyncio.to_thread(encoded, decided.preview, self._style.file)),
            "image_index": decided.image,
            "addiffusion": {
                "step": decided.step,
                "num_steps": decided.num_steps,
                "action": decided.action.name.lower(),
                "nfe": decided.nfe,
                "cost": decided.cost,
            },
            **common,
        }
        events: list[dict[str, Any]] = []
        if self._order.every_decision:
            mask = None if decided.mask is None else _text(encoded(_grey(decided.mask), _MASK))
            events.append({"type": "image_generation.decision", **said, "mask_b64_json": mask})
        if decided.preview_index is not None:
            index = decided.preview_index
            events.append({"type": "image_generation.partial_image", "partial_image_index": index, **said})
        return events

    async def _file(self, drawn: Drawn) -> str:
        parameters = parameters_of(self._order, drawn, self._drawing.facts)
        return _text(await asyncio.to_thread(encoded, drawn.pixels, self._style.file, parameters))


def record_of(drawn: Drawn) -> dict[str, Any]:
    """What an image took."""
    return {
        "seed": drawn.seed,
        "nfe": drawn.nfe,
        "network_evals": drawn.network_evals,
        "cost": drawn.cost,
        "full_cost": drawn.full_cost,
        "c_nfe": drawn.c_nfe,
        "actions": [action.name.lower() for action in drawn.actions],
        "stopped_at": drawn.stopped_at,
        "seconds": round(drawn.seconds, 4),
        "engine_seconds": round(drawn.engine_seconds, 4),
    }


def _usage(images: Sequence[Drawn]) -> dict[str, Any]:
    """Tokens that the text encoder read, and passes through the network in place of tokens that came out."""
    read, passes = sum(one.prompt_tokens for one in images), sum(one.network_evals for one in images)
    return {
        "input_tokens": read,
        "output_tokens": passes,
        "total_tokens": read + passes,
        "input_tokens_details": {"text_tokens": read, "image_tokens": 0},
    }


def _model(drawing: Drawing) -> dict[str, Any]:
    facts = drawing.facts
    return {
        "id": facts.model,
        "object": "model",
        "created": 0,
        "owned_by": "addiffusion",
        "addiffusion": {
            "policy": facts.policy,
            "size": f"{facts.image_size}x{facts.image_size}",
            "solver": facts.solver,
            "solvers": list(facts.solvers),
            "num_inference_steps": facts.num_steps,
            "least_num_inference_steps": facts.least_steps,
            "guidance_scale": facts.guidance_scale,
            "guided": facts.guided,
            "speeds": None if (speeds := facts.dial.speeds(facts.num_steps)) is None else list(speeds),
            "slots": facts.slots,
        },
    }


def _grey(mask: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(h, w) of 0 to 1 as an image (h, w, 3)."""
    return np.repeat((mask.clip(0, 1) * 255).round().astype(np.uint8)[:, :, None], 3, axis=2)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _sent(event: Mapping[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
