"""Made-up finished episodes, for reports and figures."""

from __future__ import annotations

import numpy as np

from addiffusion.actions import Action
from addiffusion.records import Episode, Frames, Prompt, Ticket


def toy_episode(
    number: int = 0,
    *,
    actions: list[Action] | None = None,
    tier: int = 1,
    nfe: int | None = None,
    clip: float = 0.3,
    forced: Action | None = None,
    frames: bool = False,
) -> Episode:
    """An episode that took ``actions`` after three warm-up steps."""
    taken = np.array([Action.CONTINUE, Action.STOP] if actions is None else actions, np.int64)
    count, draws = len(taken), np.random.default_rng(number)
    scores = np.tile(np.array([clip, 5.0, 0.1], np.float32), (count + 1, 1))
    image = draws.integers(0, 255, (16, 16, 3), np.uint8)
    ticket = Ticket(
        ticket_id=number,
        prompt=Prompt(prompt_id=number, text=f"prompt {number}", tier=tier),
        seed=number,
        action_seed=number,
        c_nfe=0.01,
        forced=forced,
        explore=False,
    )
    return Episode(
        ticket=ticket,
        phi=np.zeros((count, 4), np.float32),
        actions=taken,
        log_prob=np.zeros(count, np.float32),
        logits=np.zeros((count, 3), np.float32),
        steps=np.arange(3, 3 + count),
        nfe_spent=np.ones(count, np.int64),
        scores=scores,
        terms=np.zeros((count, 4), np.float32),
        final_dino=np.array([1.0, 0.0], np.float32),
        image=image,
        nfe=4 + count if nfe is None else nfe,
        network_evals=2 * (4 + count),
        weight_version=0,
        seconds=0.1,
        frames=_frames(taken, draws) if frames else None,
    )


def _frames(actions: np.ndarray, draws: np.random.Generator) -> Frames:
    images = draws.integers(0, 255, (len(actions) + 1, 16, 16, 3), np.uint8)
    mask = np.zeros((8, 8), np.float32)
    mask[2:6, 3:7] = 1
    return Frames(images=images, masks=tuple(mask if action == Action.REFINE else None for action in actions))
