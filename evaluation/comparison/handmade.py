"""Hand-made opponents: what a person would save by without learning, as contestants by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from re import Match
from typing import Final

from addiffusion.actions import Action
from addiffusion.config import SamplerSection
from addiffusion.errors import UsageError
from evaluation.comparison.contestants import Contestant, full_run, static

Rule = Callable[[Contestant, Match[str]], Contestant]
FORMS = (
    "guidance-to-STEP, guidance-STEP-STEP, leapN-from-STEP, leapN-to-STEP, best-of-N-at-STEP or "
    "redraw-below-SCORE-at-STEP, each on the agent's schedule or, after SOLVER-STEPS:, on a static sampler's"
)
HANDMADE = (
    "guidance-to-10",
    "guidance-to-25",
    "guidance-5-30",
    "ddim-20:guidance-to-5",
    "ddim-20:guidance-to-10",
    "ddim-20:guidance-3-12",
    "leap2-from-3",
    "leap4-from-3",
    "leap2-from-25",
    "dpm++2m-20:leap2-from-10",
    "ddim-10:best-of-4-at-2",
    "ddim-20:best-of-4-at-4",
    "ddim-20:redraw-below-0.85-at-4",
    "ddim-10:redraw-below-0.85-at-2",
    "ddim-10@3.5:redraw-below-0.85-at-2",
    "ddim-10@3.5:best-of-2-at-2",
    "ddim-10@3.5:best-of-4-at-2",
    "ddim-10@3.5:best-of-8-at-2",
    "ddim-20@3.5:best-of-2-at-4",
    "ddim-20@3.5:best-of-4-at-4",
    "dpm++2m-10@3.5:best-of-4-at-2",
)
"""Those of the results page."""
REDRAWS = 2
"""Times that a hand-made opponent draws again."""


def handmade(text: str, sampler: SamplerSection) -> Contestant:
    """A hand-made opponent by its name; FORMS says how names look.

    Args:
        text: the name.
        sampler: of the agent.

    Raises:
        UsageError: it is no such name, or its steps are not on the schedule.
    """
    base, _, rule = text.rpartition(":")
    plain = static(base, sampler) if base else full_run(sampler)
    for pattern, made in _RULES.items():
        found = re.fullmatch(pattern, rule)
        if found:
            _check_steps(text, found, plain.sampler)
            title = f"{rule.replace('-', ' ')} ({plain.title})" if base else rule.replace("-", " ")
            return replace(made(plain, found), name=text.replace(":", "-"), title=title)
    raise UsageError(f"{text!r} is no hand-made opponent: give {FORMS}.", opponent=text)


def _guided_between(plain: Contestant, first: int, end: int) -> Contestant:
    """Guided passes from ``first`` to before ``end``, beside those of the warm-up (arXiv:2404.07724)."""
    script = (
        Action.CONTINUE if first <= step + 1 < end else Action.UNGUIDED for step in range(plain.sampler.num_steps)
    )
    return replace(plain, kind="control", script=tuple(script))


def _leaping(plain: Contestant, leap_steps: int, first: int, end: int) -> Contestant:
    sampler = SamplerSection.model_validate(plain.sampler.model_dump() | {"leap_steps": leap_steps})
    script = (Action.LEAP if first <= step < end else Action.CONTINUE for step in range(sampler.num_steps))
    return replace(plain, kind="control", sampler=sampler, script=tuple(script))


def _tried(plain: Contestant, draws: int, step: int, below: float | None = None) -> Contestant:
    return replace(plain, kind="search", draws=draws, abandon_at=step, redraw_below=below)


_RULES: Final[dict[str, Rule]] = {
    r"guidance-to-(?P<step>\d+)": lambda plain, found: _guided_between(plain, 0, int(found["step"])),
    r"guidance-(?P<first>\d+)-(?P<step>\d+)": lambda plain, found: _guided_between(
        plain, int(found["first"]), int(found["step"])
    ),
    r"leap(?P<n>\d+)-from-(?P<step>\d+)": lambda plain, found: _leaping(
        plain, int(found["n"]), int(found["step"]), plain.sampler.num_steps
    ),
    r"leap(?P<n>\d+)-to-(?P<step>\d+)": lambda plain, found: _leaping(plain, int(found["n"]), 0, int(found["step"])),
    r"best-of-(?P<draws>[1-9]\d*)-at-(?P<step>\d+)": lambda plain, found: _tried(
        plain, int(found["draws"]), int(found["step"])
    ),
    r"redraw-below-(?P<score>-?\d+(\.\d+)?)-at-(?P<step>\d+)": lambda plain, found: _tried(
        plain, 1 + REDRAWS, int(found["step"]), float(found["score"])
    ),
}


def _check_steps(text: str, found: Match[str], sampler: SamplerSection) -> None:
    step, first, last = int(found["step"]), sampler.warmup_steps, sampler.num_steps - 1
    if not first <= step <= last:
        raise UsageError(
            f"{text!r} names step {step}, but decisions are at steps {first} to {last}: give one of these.",
            opponent=text,
        )
