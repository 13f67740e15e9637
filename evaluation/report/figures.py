"""What each figure shows, told once: its data, names, words and colours. PNG and page draw from here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from addiffusion.actions import ACTION_NAMES, FIRST_ACTIONS, Action
from addiffusion.records import SCORE_NAMES, TERM_NAMES
from evaluation.report.chart import Head
from evaluation.report.report_data import Row
from evaluation.style import ACTION_COLORS, BLUE, GREEN, GREY, ORANGE, PALE, PURPLE, VERMILLION


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One metric over the iterations."""

    metric: str
    """Of metrics.jsonl."""
    name: str
    color: str
    optional: bool = False
    """Left out where it is 0 throughout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Metrics of a training that are looked at together."""

    head: Head
    lines: tuple[Line, ...]
    shape: Literal["lines", "band", "stack", "apart"] = "lines"
    """``band``: the first two lines bound an area around the third; ``stack``: shares of 1; ``apart``: units differ, so
    each has an axis of its own."""
    mark: tuple[float, str] | None = None
    """A value to compare with, and its name."""


def _head(key: str, title: str, words: str) -> Head:
    return Head(id=key, section="Training", title=title, words=words, x="iteration")


def _lines(
    prefix: str, names: Sequence[str], colors: Sequence[str], suffix: str = "", *, optional: bool = False
) -> tuple[Line, ...]:
    return tuple(
        Line(metric=f"{prefix}{name}{suffix}", name=name.replace("_", " "), color=color, optional=optional)
        for name, color in zip(names, colors, strict=True)
    )


TRAINING = (
    Panel(
        head=_head("reward", "Reward per episode", "Terms after weights, and their sum."),
        lines=(
            *_lines("term_", TERM_NAMES, (BLUE, VERMILLION, ORANGE, GREEN), optional=True),
            Line(metric="return", name="total", color=GREY),
        ),
    ),
    Panel(
        head=_head("nfe", "NFE per image", "Mean, and the band that holds 80 % of the images."),
        lines=(
            Line(metric="nfe_p10", name="10 %", color=BLUE),
            Line(metric="nfe_p90", name="10-90 %", color=BLUE),
            Line(metric="nfe", name="mean", color=BLUE),
        ),
        shape="band",
    ),
    Panel(
        head=_head("mix", "Action mix", "Share of each action among all decisions."),
        lines=(
            *_lines("", FIRST_ACTIONS, [ACTION_COLORS[action] for action in list(Action)[:3]], "_frac"),
            *_lines(
                "", ACTION_NAMES[3:], [ACTION_COLORS[action] for action in list(Action)[3:]], "_frac", optional=True
            ),
        ),
        shape="stack",
    ),
    Panel(
        head=_head("scores", "Scores of the returned images", "One axis each: units differ."),
        lines=_lines("score_", SCORE_NAMES, (BLUE, ORANGE, PURPLE)),
        shape="apart",
    ),
    Panel(
        head=_head("entropy", "Policy entropy (nats)", "Near 0 means: always the same action."),
        lines=(Line(metric="entropy", name="entropy", color=BLUE),),
        mark=(float(np.log(len(FIRST_ACTIONS))), "even over three"),
    ),
    Panel(
        head=_head("losses", "Losses", "Of the learner, and how far an update moves the policy."),
        lines=(
            Line(metric="policy_loss", name="policy loss", color=BLUE),
            Line(metric="vf_loss", name="value loss", color=ORANGE),
            Line(metric="approx_kl", name="KL to the policy before", color=GREY),
        ),
    ),
)
"""The course of a training, from the lines of metrics.jsonl."""

_DOES = "What the agent does"
ACTION_MIX = Head(
    id="by-step",
    section=_DOES,
    title="What the policy does at each step",
    words="Share of all images that take each action; the rest is finished, warming up or leapt over. An image that is "
    "drawn again counts again.",
    x="schedule step i",
)
STOPPING_TIMES = Head(
    id="stopping",
    section=_DOES,
    title="When images are finished",
    words="Images by NFE spent, one colour per tier: harder prompts should stand further right.",
    x="NFE spent on the image",
)
SHARE_NAMES = (*ACTION_NAMES, "finished or warming up")
SHARE_COLORS = (*(ACTION_COLORS[action] for action in Action), PALE)


class Decided(Protocol):
    """An image's decisions."""

    @property
    def actions(self) -> ArrayLike:
        """(d,) actions."""
        ...

    @property
    def steps(self) -> ArrayLike:
        """(d,) schedule step of each."""
        ...


def action_shares(images: Sequence[Decided], *, num_steps: int) -> NDArray[np.float64]:
    """(7, num_steps) share of images that take each action, or no decision, at each schedule step.

    What an image does after a redraw counts as well, so that shares can exceed 1 there.
    """
    counts = np.zeros((len(ACTION_NAMES), num_steps))
    for image in images:
        np.add.at(counts, (np.asarray(image.actions, int), np.asarray(image.steps, int)), 1.0)
    shares = counts / max(len(images), 1)
    return np.vstack([shares, np.maximum(0.0, 1.0 - shares.sum(axis=0))])


def named_shares(shares: NDArray[np.float64]) -> list[tuple[str, str, NDArray[np.float64]]]:
    """Name, colour and (num_steps,) share of those rows of ``action_shares`` that figures show.

    What only some policies can do is left out where nobody does it.
    """
    found = zip(SHARE_NAMES, SHARE_COLORS, shares, strict=True)
    return [
        one for row, one in enumerate(found) if row < len(FIRST_ACTIONS) or row == len(ACTION_NAMES) or one[2].any()
    ]


def tier_name(tier: int) -> str:
    """How a tier is written; 0 is a set without tiers."""
    return f"tier {tier}" if tier else "all prompts"


def column(rows: Sequence[Row], name: str) -> NDArray[np.float64]:
    """One metric over the iterations; NaN where a line lacks it."""
    values = (row.get(name) for row in rows)
    return np.array([np.nan if value is None else float(value) for value in values])


def drawn_lines(panel: Panel, rows: Sequence[Mapping[str, float | None]]) -> list[tuple[Line, NDArray[np.float64]]]:
    """Lines with their values (iterations,)."""
    found = [(line, column(rows, line.metric)) for line in panel.lines]
    return [(line, values) for line, values in found if not line.optional or np.nan_to_num(values).any()]
