"""Images whose request wants them soon: the price rises as its deadline nears, so that they cost less and are done."""

from __future__ import annotations

from dataclasses import dataclass, replace

from addiffusion.actions import Action
from addiffusion.pipeline.price import PriceDial
from addiffusion.records import Ticket
from addiffusion.sampling.slot import SlotInfo

SPARE_TICKS = 2.0
"""Ticks that are kept for decoding and for a slow pass."""
_SMOOTHING = 0.2
"""Weight of the last tick in the mean."""


class Pace:
    """Seconds of a tick, as a running mean; 0 before the first."""

    def __init__(self) -> None:
        self.tick_s = 0.0

    def note(self, seconds: float) -> None:
        """Take one tick in."""
        self.tick_s = seconds if self.tick_s == 0 else (1 - _SMOOTHING) * self.tick_s + _SMOOTHING * seconds

    def ticks(self, seconds: float) -> float:
        """Ticks that fit into so many seconds, but those to spare; infinite before the first."""
        return float("inf") if self.tick_s == 0 else seconds / self.tick_s - SPARE_TICKS


@dataclass(frozen=True, slots=True, kw_only=True)
class Hurry:
    """What is known of an image when its price is looked at."""

    info: SlotInfo
    ticks_left: float
    """Before the deadline."""
    finish_passes: int
    """That a stop at its next decision still costs."""
    dial: PriceDial


def hurried(ticket: Ticket, hurry: Hurry) -> Ticket:
    """The ticket as its image can still be done in time: dearer, or stopped at its next decision.

    Args:
        ticket: as it is.
        hurry: where its image stands.
    """
    info, dial = hurry.info, hurry.dial
    if hurry.ticks_left <= hurry.finish_passes + 1:
        return replace(ticket, forced=Action.STOP)
    per_pass = info.cost / info.nfe if info.nfe else 1.0
    affordable = info.cost + hurry.ticks_left * per_pass
    expected = dial.expected_cost(ticket.c_nfe, info.num_steps)
    if expected is None:
        expected = info.num_steps * per_pass
        dearer = ticket.c_nfe * expected / affordable
    else:
        dearer = dial.at_cost(affordable, info.num_steps)
    return replace(ticket, c_nfe=dearer) if affordable < expected and dearer > ticket.c_nfe else ticket
