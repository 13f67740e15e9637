"""The app that answers over HTTP, whoever draws: this process, or replicas on a cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from addiffusion import __version__
from serving.a1111_api import a1111_routes
from serving.drawing import Drawing
from serving.error_shape import error_response
from serving.errors import NoSuchError, RefusedError, RequestError
from serving.limits import Limits
from serving.openai_api import openai_routes
from serving.request_models import refusal_of
from serving.security import Access, AsgiApp, Guard


@dataclass(frozen=True, kw_only=True)
class WebSettings:
    """How a server is reached."""

    access: Access
    limits: Limits


def make_app(drawing: Drawing, settings: WebSettings, metrics_page: Callable[[], bytes]) -> AsgiApp:
    """The whole app.

    Args:
        drawing: draws the images.
        settings: who may ask, and how much.
        metrics_page: metrics in Prometheus's text format.
    """
    app = FastAPI(title="addiffusion", version=__version__, docs_url=None, redoc_url=None)
    app.include_router(openai_routes(drawing), responses=_ERRORS)
    app.include_router(a1111_routes(drawing), responses=_ERRORS)
    app.add_exception_handler(RequestError, _said)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _no_route)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether images can be drawn."""
        await drawing.check_health()
        return {"status": "ok"}

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Metrics of this process, for Prometheus."""
        return Response(metrics_page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return Guard(app, access=settings.access, body_bytes=settings.limits.body_bytes)


async def _said(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestError)
    return error_response(error)


async def _not_valid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    field = getattr(request.scope.get("route"), "body_field", None)
    body: Any = getattr(getattr(field, "field_info", None), "annotation", None)
    fields = list(getattr(body, "model_fields", ()))
    return error_response(refusal_of(error.errors(), fields))


async def _no_route(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    path = f"{request.method} {request.url.path!a:.200}"
    if error.status_code == 404:
        return error_response(NoSuchError(f"There is nothing at {path}."))
    answer = error_response(RefusedError(f"{path} can't be answered: {error.detail}."))
    answer.status_code = error.status_code
    return answer


_ERRORS: dict[int | str, dict[str, Any]] = {"4XX": {"description": "What was asked can't be answered."}} | {
    status: {
        "description": text,
        "content": {"application/json": {"schema": {"type": "object", "properties": {"error": {"type": "object"}}}}},
    }
    for status, text in {
        400: "A field can't be used; the error names it.",
        401: "The API key is missing or wrong.",
        403: "The request comes from a foreign page.",
        404: "There is nothing of that name.",
        408: "The images can't be drawn by the request's own deadline.",
        413: "The body is too large.",
        429: "As many images wait as may; Retry-After says when to come again.",
        503: "Nothing can be drawn now.",
    }.items()
}
