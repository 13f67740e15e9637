"""Who may send requests, and how large they may be: a key beyond loopback, no foreign pages, no endless bodies."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import os
import stat
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeAlias

from addiffusion.errors import ConfigError
from serving.error_shape import error_response
from serving.errors import DeadlineError, ForbiddenError, RequestError, TooLargeError, UnauthorisedError

KEY_VARIABLE = "ADDIFFUSION_API_KEY"
_SHORTEST = 16
_OPEN_PATHS = frozenset({"/", "/health"})
"""Without a key: the page asks for it, and health says no more than whether images can be drawn."""
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_BODY_S = 30.0
"""Longest time that the body of a request may take to arrive."""

Scope: TypeAlias = MutableMapping[str, Any]
Event: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may ask. Its key is never shown."""

    key: str | None
    """None: whoever reaches the port."""
    loopback: bool
    """Only this machine reaches the port; then requests by another name than its own are refused, since only a page
    whose name was bent to this machine sends them."""

    def __repr__(self) -> str:
        return f"Access(key={'given' if self.key else 'none'}, loopback={self.loopback})"


def read_key(file: Path | None) -> str | None:
    """The key from a file, or else from the environment; None where there is none.

    Raises:
        ConfigError: the file can't be read or is open to others, or the key is too short or no plain text.
    """
    where = str(file) if file is not None else KEY_VARIABLE
    key = (_key_of(file) if file is not None else os.environ.get(KEY_VARIABLE, "")).strip()
    if not key:
        if file is not None:
            raise ConfigError(f"The API key file {file} is empty: put the key into it.", path=str(file))
        return None
    if len(key) < _SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"The API key of {where} can't be used: give at least {_SHORTEST} ASCII characters without spaces, such as "
            'those of `python -c "import secrets; print(secrets.token_urlsafe(32))"`.'
        )
    return key


def access_for(host: str, key: str | None) -> Access:
    """Who may ask a server that listens on ``host``.

    Raises:
        ConfigError: it is reached from other machines, and there is no key.
    """
    loopback = is_loopback(host)
    if not loopback and key is None:
        raise ConfigError(
            f"--host {host} is reached from other machines, which takes a key: set {KEY_VARIABLE} or give "
            "--api-key-file, or listen on 127.0.0.1.",
            host=host,
        )
    return Access(key=key, loopback=loopback)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """In front of the app: lets through what may be asked, with its whole body at hand."""

    def __init__(self, app: AsgiApp, *, access: Access, body_bytes: int) -> None:
        """A guard.

        Args:
            app: behind it.
            access: who may ask.
            body_bytes: longest body.
        """
        self._app, self._access, self._body_bytes = app, access, body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            self._check_origin(headers)
            if scope["path"] not in _OPEN_PATHS:
                self._check_key(headers)
            body = await self._body(headers, receive)
        except TimeoutError:
            slow = DeadlineError(f"The body of the request did not arrive within {_BODY_S:g} s.")
            await error_response(slow)(scope, receive, send)
            return
        except RequestError as error:
            await error_response(error)(scope, receive, send)
            return
        if body is not None:
            await self._app(scope, _replayed(body, receive), _with_headers(send))

    def _check_origin(self, headers: dict[str, str]) -> None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise ForbiddenError(f"Pages of {origin!a} may not ask this server: only its own page may.")
        if self._access.loopback and self._access.key is None and not is_loopback(_hostname(host)):
            raise ForbiddenError(
                f"This server listens on loopback and was asked as {host!a}: use http://127.0.0.1 or "
                "http://localhost, or start it with a key."
            )

    def _check_key(self, headers: dict[str, str]) -> None:
        if self._access.key is None:
            return
        given = _key_in(headers.get("authorization", "")) or headers.get("x-api-key", "")
        if not hmac.compare_digest(given.encode(), self._access.key.encode()):
            what = "is missing" if not given else "is not the one this server was started with"
            raise UnauthorisedError(f"The API key {what}: send it as `Authorization: Bearer KEY`.")

    async def _body(self, headers: dict[str, str], receive: Receive) -> bytes | None:
        """The whole body; None where the client has gone before its end."""
        declared = headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared[:20]) > self._body_bytes:
            raise self._too_large()
        parts: list[bytes] = []
        async with asyncio.timeout(_BODY_S):
            while True:
                event = await receive()
                if event["type"] != "http.request":
                    return None
                parts.append(event.get("body", b""))
                if sum(map(len, parts)) > self._body_bytes:
                    raise self._too_large()
                if not event.get("more_body", False):
                    return b"".join(parts)

    def _too_large(self) -> TooLargeError:
        return TooLargeError(f"The body of a request may have {self._body_bytes} bytes at most: send less.")


def _with_headers(send: Send) -> Send:
    """A sender of answers that no other page may frame, and no browser takes for something else."""

    async def sent(event: Event) -> None:
        if event["type"] == "http.response.start":
            event["headers"] = [*event.get("headers", ()), *_HEADERS]
        await send(event)

    return sent


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A receiver that gives the body first, and then whatever comes."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Event:
        return waiting.pop() if waiting else await receive()

    return replay


def _hostname(host: str) -> str:
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _key_in(authorization: str) -> str:
    """Of a bearer header, or the password of a basic one, which front ends of A1111 send."""
    kind, _, value = authorization.partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() != "basic":
        return ""
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _key_of(file: Path) -> str:
    try:
        if stat.S_IMODE(file.stat().st_mode) & 0o077:
            raise ConfigError(f"The API key file {file} can be read by others: `chmod 600 {file}`.", path=str(file))
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The API key file {file} can't be read ({error}).", path=str(file)) from error
