"""Film strips: what an episode looked like at each decision, and what the policy chose to do about it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from addiffusion.actions import Action
from addiffusion.records import SCORE_NAMES, Episode, Frames
from evaluation.style import ACTION_COLORS, INK, save, style

FRAMES_PER_STRIP = 9
_CLIP = SCORE_NAMES.index("clip")
_FRAME_INCHES, _CAPTION_INCHES = 1.45, 0.72


def plot_film_strips(episodes: Sequence[Episode], path: Path) -> Path | None:
    """One strip per episode that kept its frames; None, and no file, when none did.

    Under each frame: schedule step, action (also the colour of the frame), redraws so far, CLIP score. A refine's mask
    is laid over its frame. The last frame of a strip is the returned image.
    """
    filmed = [(episode, episode.frames) for episode in episodes if episode.frames is not None]
    if not filmed:
        return None
    picks = [chosen_frames(episode.actions) for episode, _ in filmed]
    columns = max(len(pick) for pick in picks)
    with style():
        height = (_FRAME_INCHES + _CAPTION_INCHES) * len(filmed)
        figure = Figure(figsize=(max(columns * _FRAME_INCHES, 6.0), height))
        grid = figure.add_gridspec(
            len(filmed),
            columns,
            wspace=0.08,
            hspace=_CAPTION_INCHES / _FRAME_INCHES,
            left=0.01,
            right=0.99,
            top=1 - 0.34 / height,
            bottom=0.4 / height,
        )
        for row, ((episode, frames), pick) in enumerate(zip(filmed, picks, strict=True)):
            for position, index in enumerate(pick):
                _draw_frame(figure.add_subplot(grid[row, position]), episode, frames, index)
            figure.axes[-len(pick)].set_title(_title(episode, columns), loc="left", fontsize=10, pad=6)
        return save(figure, path)


def chosen_frames(actions: NDArray[np.int64], limit: int = FRAMES_PER_STRIP) -> list[int]:
    """Up to ``limit`` frame indices: the first, the returned image, rare actions, then an even spread of the others."""
    last = len(actions)
    if last < limit:
        return list(range(last + 1))
    rare = [int(index) for index in np.flatnonzero(actions >= Action.REFINE)]
    chosen = {0, last - 1, last, *rare[: limit // 2]}
    for index in _even_first(last):
        if len(chosen) >= limit:
            break
        chosen.add(index)
    return sorted(chosen)


def _even_first(count: int) -> list[int]:
    """0 .. count - 1 in an order whose every beginning is spread evenly (halves, quarters, eighths, ...)."""
    order: list[int] = []
    denominator = 2
    while len(order) < count and denominator <= 2 * count:
        for numerator in range(1, denominator, 2):
            index = round(numerator / denominator * (count - 1))
            if index not in order:
                order.append(index)
        denominator *= 2
    return order


def _title(episode: Episode, columns: int) -> str:
    prompt = episode.ticket.prompt
    tier = f"tier {prompt.tier}, " if prompt.tier else ""
    words = f'"{prompt.text}"  ({tier}{episode.nfe} NFE)'
    return textwrap.shorten(words, width=max(columns * 17, 70), placeholder=" ...")


def _draw_frame(axes: Axes, episode: Episode, frames: Frames, index: int) -> None:
    axes.imshow(frames.images[index], interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    last = index == len(episode.actions)
    action = None if last else Action(int(episode.actions[index]))
    color = INK if action is None else ACTION_COLORS[action]
    for spine in axes.spines.values():
        spine.set(visible=True, color=color, linewidth=3.0)
    mask = None if last else frames.masks[index]
    if mask is not None:
        _draw_mask(axes, mask, frames.images[index].shape[:2])
    name = "result" if action is None else f"{episode.steps[index]}  {action.name.lower()}"
    axes.text(0.5, -0.05, name, transform=axes.transAxes, ha="center", va="top", color=color, weight="bold", fontsize=9)
    redraws = 0 if last else int(episode.attempts[index])
    score = float(episode.scores[index, _CLIP])  # not a number where the policy did not look
    # The better of two attempts goes on, so that this need not be the last of them.
    told = [*([f"redrawn {redraws}x"] if redraws else []), *([f"CLIP {score:.3f}"] if np.isfinite(score) else [])]
    axes.text(
        0.5,
        -0.18,
        ", ".join(told),
        transform=axes.transAxes,
        ha="center",
        va="top",
        fontsize=8,
    )


def _draw_mask(axes: Axes, mask: NDArray[np.float32], size: tuple[int, ...]) -> None:
    """The refined region: a translucent veil with an outline, stretched from latent to image pixels."""
    height, width = size
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    color = ACTION_COLORS[Action.REFINE]
    veil = np.zeros((*mask.shape, 4))
    veil[..., :3] = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    veil[..., 3] = 0.45 * np.clip(mask, 0, 1)
    axes.imshow(veil, extent=extent, interpolation="bilinear")
    if mask.min() < 0.5 < mask.max():
        rows = (np.arange(mask.shape[0]) + 0.5) * height / mask.shape[0] - 0.5
        columns = (np.arange(mask.shape[1]) + 0.5) * width / mask.shape[1] - 0.5
        axes.contour(columns, rows, mask, levels=[0.5], colors="white", linewidths=1.2)
