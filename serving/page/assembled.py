"""The page as one file, and the policy that lets a browser run nothing but it."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final

_HERE: Final = Path(__file__).parent
_SCRIPTS: Final = ("server.js", "memory.js", "picture.js", "page.js")
"""In the order they run in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What is answered at `/`."""

    content: bytes
    headers: dict[str, str]


def assembled() -> Page:
    """The page with its style and scripts inside.

    Its Content-Security-Policy allows these by their hashes, images that are in the page, and requests to the server
    itself; a text of a user that came to be markup would be neither run nor loaded.
    """
    style, scripts = _text("page.css"), [_text(name) for name in _SCRIPTS]
    content = Template(_text("page.html")).substitute(
        style=f"<style>{style}</style>", scripts="\n".join(f"<script>{script}</script>" for script in scripts)
    )
    policy = {
        "default-src": "'none'",
        "script-src": " ".join(map(_hash, scripts)),
        "style-src": _hash(style),
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    headers = {
        "Content-Security-Policy": "; ".join(f"{name} {allowed}" for name, allowed in policy.items()),
        "Cache-Control": "no-cache",
    }
    return Page(content=content.encode(), headers=headers)


def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """As the Content-Security-Policy standard writes it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
