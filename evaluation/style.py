"""One look for every figure: a palette that colour-blind readers can tell apart, light axes, readable labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from addiffusion.actions import Action
from addiffusion.files import make_folder, whole_file

# Okabe and Ito, "Color Universal Design", 2008.
BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
INK, GREY, PALE = "#222222", "#8A8A8A", "#E6E6E6"

ACTION_COLORS = {
    Action.CONTINUE: BLUE,
    Action.STOP: VERMILLION,
    Action.REFINE: GREEN,
    Action.LEAP: ORANGE,
    Action.UNGUIDED: SKY,
    Action.REDRAW: PURPLE,
}
TIER_COLORS = {0: GREY, 1: SKY, 2: ORANGE, 3: PURPLE}

_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "lines.linewidth": 2.0,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "white",
}


@contextmanager
def style() -> Iterator[None]:
    """The house style for figures built inside the block; the process's own settings stay as they are."""
    with mpl.rc_context(_STYLE):
        yield


def save(figure: Figure, path: Path) -> Path:
    """Write ``figure`` as PNG, whole or not at all.

    Raises:
        OutputError: the disk is full, or can't be written.
    """
    make_folder(path.parent)
    with whole_file(path) as draft:
        figure.savefig(draft, format="png", dpi=140, bbox_inches="tight", pad_inches=0.15)
    return path


def legend(axes: Axes, columns: int = 1) -> None:
    """A legend that covers no data where it can avoid it."""
    axes.legend(loc="best", ncols=columns, fontsize=9, handlelength=1.4, labelspacing=0.3, columnspacing=1.2)
