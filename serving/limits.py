"""What a server takes in at most."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of a request, and of all that wait."""

    images: int = 10
    """Of one request."""
    prompt_characters: int = 4000
    body_bytes: int = 1_000_000
    waiting_images: int = 128
    """Of all requests; beyond it they are told to come again."""
    steps: int = 200
    """Each number of steps is a schedule of its own in memory."""
    schedules: int = 64
    """Different schedules in memory; beyond it the engine is made anew between two images."""
    stall_s: float = 300.0
    """A tick that takes longer hangs: its requests are answered by an error, and the server says that it is ill."""
