"""Errors as OpenAI's clients read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from serving.errors import DeadlineError, RequestError


def error_object(error: RequestError) -> dict[str, Any]:
    """The ``error`` object of an answer."""
    return {
        "message": printable(error.message),
        "type": error.kind,
        "param": error.facts.get("param"),
        "code": error.code,
    }


def error_response(error: RequestError) -> JSONResponse:
    """An answer that says why there are no images."""
    return JSONResponse({"error": error_object(error)}, status_code=error.status, headers=_headers(error))


def printable(text: str) -> str:
    """The text as UTF-8 can say it: half of a surrogate pair is spelt out."""
    return text.encode("utf-8", "backslashreplace").decode()


def _headers(error: RequestError) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    if "retry_after_s" in error.facts:
        headers["Retry-After"] = str(error.facts["retry_after_s"])
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, DeadlineError):
        headers["x-should-retry"] = "false"  # OpenAI's clients send again what was answered with 408
    return headers
