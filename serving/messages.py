"""What the engine loop is told, and what it tells: two closed sets of records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from addiffusion.actions import Action
from addiffusion.setting import Setting
from serving.errors import RequestError


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A request, as the engine takes it. Plain values: it may travel to another process, and be sent there again."""

    request_id: str
    prompt: str
    seeds: tuple[int, ...]
    """One for each image."""
    c_nfe: float
    """Price of one NFE."""
    setting: Setting = field(default_factory=Setting)
    full_run: bool = False
    """Draw to full length; no policy is asked."""
    deadline_s: float | None = None
    """Seconds within which all images are wanted."""
    previews: int = 0
    """How many previews of each image are wanted on its way."""
    every_decision: bool = False
    """Tell of every decision, with a preview and the region that is refined."""
    by_front_end: bool = False
    """Of an API whose calls for progress and interruption name no request: they mean all of these."""


# ---------------------------------------------------------------- to the loop


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """Draw the images of an order."""

    order: Order
    tell: Callable[[Outcome], None]
    """Called in the loop's own thread; must not block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Give up what is left of a request: its slots are free at the next tick."""

    request_id: str
    as_they_are: bool = False
    """Tell of its images as they are now, those in slots as previews; else nothing more is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steer:
    """Override the policy from an image's next decision on."""

    request_id: str
    image: int
    action: Literal["stop", "continue"]
    """Stop there, or go on to the end of the schedule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """Take nothing in any more, finish what is under way, and end."""

    within_s: float
    """What is not done then is answered by an error."""


Message: TypeAlias = Submit | Cancel | Steer | Close

# ---------------------------------------------------------------- from the loop


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A request waits for slots. What follows of it is decisions, and one of Drawn for each image, or one Failed."""

    request_id: str
    waiting_count: int
    """Images that wait before its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A request that is not taken in. Nothing follows."""

    request_id: str
    error: RequestError


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A decision of one image that was to be told."""

    request_id: str
    image: int
    step: int
    """At which it was taken, from 0."""
    num_steps: int
    action: Action
    nfe: int
    cost: float
    preview_index: int | None
    """Number of this preview among those the request asks for; None where it is not among them."""
    preview: NDArray[np.uint8]
    """(H, W, 3)."""
    mask: NDArray[np.float32] | None = None
    """(h, w) in latent pixels: the region of a refine, where every decision is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """An image that is done."""

    request_id: str
    image: int
    pixels: NDArray[np.uint8]
    """(H, W, 3)."""
    seed: int
    c_nfe: float
    """Price at its end: a deadline may have raised it."""
    nfe: int
    network_evals: int
    cost: float
    full_cost: float
    """Of the full run at its setting."""
    actions: tuple[Action, ...]
    stopped_at: int | None
    prompt_tokens: int
    seconds: float
    """From the arrival of its request."""
    engine_seconds: float
    """In its slot."""
    whole: bool = True
    """False: called off on its way; the pixels are a preview."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A request of which nothing more comes."""

    request_id: str
    image: int | None
    """The image that failed, where it was one."""
    error: RequestError


Outcome: TypeAlias = Accepted | Refused | Decided | Drawn | Failed
