"""One question to the judge, one reply: the ``openai`` client, with errors that say what to do."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies

from openai import APIConnectionError, APIError, APIStatusError, DefaultHttpxClient, OpenAI, omit

from addiffusion.errors import JudgeError

KEY_VARIABLE = "ADDIFFUSION_JUDGE_KEY"
"""The only place the key is read from. A name of its own: no other service's key goes where it isn't meant to."""
_PASSING = frozenset({408, 409, 429})
"""Statuses that the client asks again, beside all from 500 on."""
_SHOWN_CHARACTERS = 200
_WEB = ("http", "https")
_LATER = "Verdicts so far are kept; run again later"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where the judge is and how long to insist."""

    base_url: str
    """Up to and with the version, such as http://127.0.0.1:8000/v1."""
    model: str
    tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """Name of the limit in the request: newer hosted models refuse the old one, older local servers know no other."""
    max_tokens: int = 512
    timeout_s: float = 120.0
    """Longest silence of the server."""
    attempts: int = 6
    """Requests per question, the first one included."""


@dataclass(slots=True, kw_only=True)
class ChatClient:
    """Asks one endpoint, one question at a time.

    Raises:
        JudgeError: the address or the key can't stand in a request, or the environment names a proxy or certificates
            that can't be used.
    """

    endpoint: Endpoint
    _client: OpenAI = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _check_address(self.endpoint.base_url)
        self._client = _connect(self.endpoint, _key_from_environment())

    def ask(self, messages: list[Any]) -> str:
        """The model's text; empty where a reply holds none.

        Raises:
            JudgeError: the endpoint refuses, or stays unreachable or busy for all attempts.
        """
        try:
            return _content(self._complete(messages))
        except APIConnectionError as error:
            reason = type(error.__cause__ or error).__name__
            raise self._error(f"gave no reply in {self.endpoint.attempts} attempts: {reason}. {_LATER}") from None
        except APIStatusError as error:
            raise self._error(self._refusal(error)) from None
        except (APIError, json.JSONDecodeError, UnicodeDecodeError):
            return ""  # not what the protocol promises

    def _complete(self, messages: list[Any]) -> object:
        limit: dict[str, Any] = {self.endpoint.tokens_field: self.endpoint.max_tokens}
        return self._client.chat.completions.create(
            model=self.endpoint.model,
            messages=messages,
            temperature=0,
            extra_headers=None if self._client.api_key else {"Authorization": omit},
            **limit,
        )

    def _refusal(self, error: APIStatusError) -> str:
        shown = self._shown(error)
        if error.status_code in _PASSING or error.status_code >= 500:
            wait = error.response.headers.get("Retry-After")
            asked = "" if wait is None else f", and asks to wait: Retry-After {wait[:40]!r}"
            return f"is busy: {shown}{asked}. {_LATER}"
        if error.status_code in (401, 403):
            return f"refuses: {shown}; set {KEY_VARIABLE}"
        return f"refuses: {shown}; check base_url, model and tokens_field"

    def _shown(self, error: APIStatusError) -> str:
        """Status and the beginning of the body, which may quote the key."""
        text = " ".join(error.response.text.split())
        key = self._client.api_key
        hidden = text.replace(key, "[key]") if key else text
        return f"HTTP {error.status_code} {hidden[:_SHOWN_CHARACTERS]!r}"

    def _error(self, what: str) -> JudgeError:
        return JudgeError(
            f"The judge {self.endpoint.model!r} at {self.endpoint.base_url} {what}.",
            base_url=self.endpoint.base_url,
            model=self.endpoint.model,
        )


def _connect(endpoint: Endpoint, key: str | None) -> OpenAI:
    _check_proxies()
    try:
        # Images and key stay with the address that was given.
        http = DefaultHttpxClient(timeout=endpoint.timeout_s, follow_redirects=False)
    except (ImportError, OSError) as error:  # SOCKS without its package; certificates of SSL_CERT_FILE
        raise JudgeError(f"The judge can't be reached as the environment asks: {str(error).rstrip('.')}.") from error
    with _nothing_for_openai():
        return OpenAI(
            base_url=endpoint.base_url,
            api_key=key or "",
            admin_api_key="",
            timeout=endpoint.timeout_s,
            max_retries=endpoint.attempts - 1,
            http_client=http,
        )


@contextmanager
def _nothing_for_openai() -> Generator[None]:
    """Keys, organisation, project and headers meant for OpenAI out of sight: the client would send them anywhere."""
    hidden = {name: os.environ.pop(name) for name in tuple(os.environ) if name.startswith("OPENAI_")}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _key_from_environment() -> str | None:
    """The key, or None for servers that want none. Never shown, not even when it can't be used."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not all("!" <= sign <= "~" for sign in key):
        raise JudgeError(
            f"{KEY_VARIABLE} holds characters that can't stand in an HTTP header: set it to the key alone."
        )
    return key or None


def _check_proxies() -> None:
    """Refuse what is no address, without showing it: it may hold a password."""
    for kind, address in getproxies().items():
        whole = address if "://" in address else f"http://{address}"
        if kind in ("http", "https", "all") and not _is_address(whole, (*_WEB, "socks5", "socks5h")):
            raise JudgeError(
                f"{kind.upper()}_PROXY in the environment is no address of a proxy: write it like "
                "http://127.0.0.1:3128, or unset it."
            )


def _is_address(text: str, schemes: Sequence[str] = _WEB) -> bool:
    try:
        parts = urlsplit(text)
        host = (parts.hostname or "").encode("idna")
        good = parts.scheme in schemes and host and parts.port != 0
    except ValueError:
        good = False
    return bool(good and re.fullmatch("[!-~]+", text))


def _check_address(base_url: str) -> None:
    if not _is_address(base_url):
        raise JudgeError(
            f"base_url is {base_url!r}, which is no address of a server: write it like http://127.0.0.1:8000/v1.",
            base_url=base_url,
        )


def _content(reply: Any) -> str:
    """Text of the first choice; empty where the reply is not what the protocol promises."""
    try:
        content = reply.choices[0].message.content
    except (AttributeError, LookupError, TypeError):
        return ""
    return content if isinstance(content, str) else ""
