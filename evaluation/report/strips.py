"""Film strips and cases as a page shows them: images as PNG in data URLs, everything else as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from addiffusion.actions import Action
from addiffusion.images import data_url
from addiffusion.records import SCORE_NAMES
from evaluation.comparison.films import Film
from evaluation.numbers import json_number
from evaluation.report.report_data import Case
from evaluation.style import ACTION_COLORS

_SHOWN_SIDE = 256
"""Larger images are shrunk to this: a page holds hundreds."""


def strip(film: Film) -> dict[str, Any]:
    """One film with its frames in order; the last one is the returned image."""
    count = len(film.actions)
    frames = [
        _frame(film.images[row], _words(film, row), Action(int(film.actions[row])), film.masks[row])
        for row in range(count)
    ]
    last = {"image": _shown(film.images[count]), "action": "result", "words": _words(film, count), "mask": None}
    taken = sorted({Action(int(action)).name.lower() for action in film.actions})
    return {
        "prompt": film.prompt,
        "tier": film.tier,
        "nfe": film.nfe,
        "actions": taken,
        "clip": json_number(float(film.scores[count, SCORE_NAMES.index("clip")])),
        "frames": [*frames, last],
    }


def case(one: Case) -> dict[str, Any]:
    """The agent's image and the full-length one, with their scores."""
    return {
        "prompt": one.prompt,
        "tier": one.tier,
        "nfe": one.nfe,
        "metric": one.metric,
        "score": one.score,
        "full_score": one.full_score,
        "image": _shown(one.image),
        "full_image": _shown(one.full_image),
    }


def _shown(image: NDArray[np.uint8]) -> str:
    """URL of an image (H, W, 3 or 4), shrunk where it is large."""
    opened = Image.fromarray(image)
    if max(opened.size) > _SHOWN_SIDE:
        opened.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
    return data_url(opened)


def _frame(image: NDArray[np.uint8], words: Sequence[str], action: Action, mask: NDArray[np.float32]) -> dict[str, Any]:
    veil = None if action is not Action.REFINE or not np.isfinite(mask).all() else _shown(_veil(mask))
    return {"image": _shown(image), "action": action.name.lower(), "words": list(words), "mask": veil}


def _veil(mask: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(h, w, 4): the refine colour where the mask is 1, clear where it is 0."""
    color = ACTION_COLORS[Action.REFINE]
    rgb = [int(color[start : start + 2], 16) for start in (1, 3, 5)]
    veil = np.zeros((*mask.shape, 4), np.uint8)
    veil[..., :3] = rgb
    veil[..., 3] = np.round(np.clip(mask, 0, 1) * 170)
    return veil


def _words(film: Film, row: int) -> list[str]:
    """Step (none for the returned image), then the scores."""
    again = int((film.actions[:row] == Action.REDRAW).sum())
    step = [] if row == len(film.actions) else [f"step {int(film.steps[row])}{f', try {again + 1}' if again else ''}"]
    scores = [
        f"{name.replace('image_reward', 'preference')} {value:.3f}"
        for name, value in zip(SCORE_NAMES, film.scores[row].tolist(), strict=True)
        if math.isfinite(value)
    ]
    return [*step, *scores]
