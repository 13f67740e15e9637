"""What the agent may do after each network pass."""

from __future__ import annotations

from enum import IntEnum


class Action(IntEnum):
    """One decision. The integer is the index of the policy's logit."""

    CONTINUE = 0
    """Commit the solver step."""
    STOP = 1
    """End the image: return z0_pred, or arrive with the finish passes when there are any."""
    REFINE = 2
    """Re-noise and re-denoise the under-attended region, then go on."""


ACTION_COUNT = len(Action)
ACTION_NAMES = tuple(action.name.lower() for action in Action)
