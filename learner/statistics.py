"""What a batch of episodes looks like in numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from addiffusion.actions import ACTION_COUNT, ACTION_NAMES, Action
from addiffusion.records import SCORE_NAMES, TERM_NAMES, Episode


def episode_statistics(episodes: Sequence[Episode]) -> dict[str, float]:
    """Means over ``episodes`` of return, reward terms, final scores, NFE and decisions, and the action mix.

    Names: ``return``, ``term_<name>``, ``score_<name>``, ``nfe``, ``network_evals``, ``decisions``,
    ``<action>_frac`` (of all decisions), ``only_continue_frac`` (of all episodes: nothing but continue),
    ``stop_at_once_frac`` (of all episodes: stop at the first decision).
    """
    terms = np.stack([episode.terms.sum(axis=0) for episode in episodes])
    scores = np.stack([episode.scores[-1] for episode in episodes])
    actions = np.bincount(np.concatenate([episode.actions for episode in episodes]), minlength=ACTION_COUNT)
    return {
        "return": float(terms.sum(axis=1).mean()),
        **{f"term_{name}": float(value) for name, value in zip(TERM_NAMES, terms.mean(axis=0), strict=True)},
        **{f"score_{name}": float(value) for name, value in zip(SCORE_NAMES, scores.mean(axis=0), strict=True)},
        "nfe": float(np.mean([episode.nfe for episode in episodes])),
        "network_evals": float(np.mean([episode.network_evals for episode in episodes])),
        "decisions": float(np.mean([len(episode.actions) for episode in episodes])),
        **{f"{name}_frac": float(n / actions.sum()) for name, n in zip(ACTION_NAMES, actions, strict=True)},
        "only_continue_frac": float(np.mean([(e.actions == Action.CONTINUE).all() for e in episodes])),
        "stop_at_once_frac": float(np.mean([e.actions[0] == Action.STOP for e in episodes])),
    }


def refine_possible(episodes: Sequence[Episode]) -> bool:
    """Whether the policies that acted could refine anywhere: a masked action has no probability at all."""
    logits = np.concatenate([episode.logits for episode in episodes])
    return bool((np.exp(logits[:, Action.REFINE] - logits.max(axis=1)) > 0).any())
