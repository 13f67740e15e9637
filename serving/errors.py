"""Why a request gets no images, each with the status that says so over HTTP."""

from __future__ import annotations

from typing import ClassVar

from addiffusion.errors import AdDiffusionError


class RequestError(AdDiffusionError):
    """A request that gets no images.

    ``facts`` may name the field (``param``) and seconds to wait (``retry_after_s``).
    """

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "server_error"
    code: ClassVar[str] = "image_failed"


class RefusedError(RequestError):
    """A field has a value that can't be used."""

    status, kind, code = 400, "invalid_request_error", "invalid_value"


class UnauthorisedError(RequestError):
    """The key is missing or wrong."""

    status, kind, code = 401, "invalid_request_error", "invalid_api_key"


class ForbiddenError(RequestError):
    """The request comes from a page or by a name that is not the server's own."""

    status, kind, code = 403, "invalid_request_error", "forbidden_origin"


class NoSuchError(RequestError):
    """There is nothing of that name."""

    status, kind, code = 404, "invalid_request_error", "not_found"


class DeadlineError(RequestError):
    """The images can't be drawn by the request's own deadline. No reason to send it again as it is."""

    status, kind, code = 408, "invalid_request_error", "deadline_not_met"


class CancelledError(RequestError):
    """Whoever asked for the images has called them off."""

    status, kind, code = 409, "invalid_request_error", "cancelled"


class TooLargeError(RequestError):
    """The body of the request is larger than any that makes sense."""

    status, kind, code = 413, "invalid_request_error", "request_too_large"


class OverloadedError(RequestError):
    """As many images wait as may."""

    status, kind, code = 429, "rate_limit_error", "queue_full"


class ImageError(RequestError):
    """An image came to nothing: the network or the policy gave values that are not finite, or a scorer failed."""


class UnavailableError(RequestError):
    """The engine is gone, is lost to its device, or is being shut down."""

    status, kind, code = 503, "server_error", "unavailable"
