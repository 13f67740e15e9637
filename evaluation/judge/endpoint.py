"""The HTTP side of the judge: one question in, one reply out, with patience for busy servers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import requests

from addiffusion.errors import JudgeError

KEY_VARIABLE = "ADDIFFUSION_JUDGE_KEY"
"""The only place the key is read from. A name of its own: no other service's key goes where it isn't meant to."""
_BUSY = frozenset({408, 429, 500, 502, 503, 504, 529})
"""Statuses that may pass: asked again."""
_SHOWN_CHARACTERS = 200


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
    backoff_s: float = 1.0
    """First wait; doubled after each failure."""
    longest_wait_s: float = 60.0
    """No wait is longer; a server that asks for more ends the run, which can go on later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """Why an attempt got no reply, and the wait the server asked for."""

    reason: str
    retry_after_s: float | None = None


def _key_from_environment() -> str | None:
    """The key, or None for servers that want none. Never shown, not even when it can't be used."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not all("!" <= sign <= "~" for sign in key):
        raise JudgeError(
            f"{KEY_VARIABLE} holds characters that can't stand in an HTTP header: set it to the key alone."
        )
    return key or None


@dataclass(slots=True, kw_only=True)
class ChatClient:
    """Asks one endpoint, one question at a time."""

    endpoint: Endpoint
    sleep: Callable[[float], None] = time.sleep
    retry_count: int = field(default=0, init=False)
    """Attempts that were repeated, over all questions."""
    _key: str | None = field(init=False, repr=False, default_factory=_key_from_environment)

    def ask(self, messages: list[dict[str, Any]]) -> str:
        """The model's text; empty where a reply holds none.

        Raises:
            JudgeError: the endpoint refuses, stays unreachable or busy for all attempts, or asks to wait too long.
        """
        failure = _Failure(reason="it was never asked")
        for attempt in range(self.endpoint.attempts):
            if attempt:
                self.retry_count += 1
                self.sleep(self._wait_s(attempt, failure))
            answer = self._attempt(messages)
            if isinstance(answer, str):
                return answer
            failure = answer
        raise self._error(
            f"gave no reply in {self.endpoint.attempts} attempts: {failure.reason}. Verdicts so far are kept; run "
            "again later, or raise attempts or longest_wait_s"
        )

    def _attempt(self, messages: list[dict[str, Any]]) -> str | _Failure:
        body = {
            "model": self.endpoint.model,
            "messages": messages,
            "temperature": 0,
            self.endpoint.tokens_field: self.endpoint.max_tokens,
        }
        url = self.endpoint.base_url.rstrip("/") + "/chat/completions"
        try:
            response = requests.post(
                url, json=body, auth=self._authorize, timeout=self.endpoint.timeout_s, allow_redirects=False
            )
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            return _Failure(reason=f"{type(error).__name__}")
        except (requests.RequestException, UnicodeError) as error:
            raise self._error(f"can't be asked: {type(error).__name__}; check base_url") from None
        if response.status_code == 200:
            return _content(response)
        if response.status_code in _BUSY:
            return _Failure(reason=self._shown(response), retry_after_s=_retry_after_s(response.headers))
        hint = f"set {KEY_VARIABLE}" if response.status_code in (401, 403) else "check base_url, model and tokens_field"
        raise self._error(f"refuses: {self._shown(response)}; {hint}")

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        # An auth callable, not a header: requests would replace the header by what it finds in a .netrc file.
        if self._key is not None:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _wait_s(self, attempt: int, failure: _Failure) -> float:
        longest = self.endpoint.longest_wait_s
        if failure.retry_after_s is None:
            return min(self.endpoint.backoff_s * 2 ** (attempt - 1), longest)
        if failure.retry_after_s > longest:
            raise self._error(
                f"asks to wait {failure.retry_after_s:.0f} s, more than longest_wait_s={longest:g}. Verdicts so far "
                "are kept; run again later"
            )
        return failure.retry_after_s

    def _shown(self, response: requests.Response) -> str:
        """Status and the beginning of the body, which may quote the key."""
        text = response.text if self._key is None else response.text.replace(self._key, "[key]")
        return f"HTTP {response.status_code} {' '.join(text.split())[:_SHOWN_CHARACTERS]!r}"

    def _error(self, what: str) -> JudgeError:
        return JudgeError(
            f"The judge {self.endpoint.model!r} at {self.endpoint.base_url} {what}.",
            base_url=self.endpoint.base_url,
            model=self.endpoint.model,
        )


def _content(response: requests.Response) -> str:
    """Text of the first choice; empty when the body is not what the protocol promises."""
    try:
        content = response.json()["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        return ""
    return content if isinstance(content, str) else ""


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header, given as number or as date (RFC 9110, section 10.2.3); None without one."""
    value = headers.get("Retry-After", "")
    if value.strip().isdecimal():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
        # The server's own clock, where it says what that is.
        now = parsedate_to_datetime(headers["Date"]) if "Date" in headers else datetime.now(UTC)
        return max((until - now).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return None
