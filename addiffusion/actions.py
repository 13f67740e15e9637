"""What the agent may do after each network pass."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum


class Action(IntEnum):
    """One decision. The integer is the index of the policy's logit."""

    CONTINUE = 0
    """Commit the solver step."""
    STOP = 1
    """End the image: return z0_pred, or arrive with the finish passes when there are any."""
    REFINE = 2
    """Re-noise and re-denoise the under-attended region, then go on."""
    LEAP = 3
    """Commit a solver step over several intervals of the schedule at once."""
    UNGUIDED = 4
    """As continue, but the next pass is without guidance, at half its cost."""
    REDRAW = 5
    """Begin again with the next noise; where both attempts were scored, the better one goes on."""


ACTION_NAMES = tuple(action.name.lower() for action in Action)
FIRST_ACTIONS = ACTION_NAMES[:3]
"""What a policy may do unless ``policy.actions`` says more."""


def action_count(names: Iterable[str]) -> int:
    """Logits of a policy that may take these actions: those of FIRST_ACTIONS, or of all."""
    return len(FIRST_ACTIONS) if set(names) <= set(FIRST_ACTIONS) else len(ACTION_NAMES)
