"""Passes of a schedule on which an image may leap: from where it comes, and where its step goes.

A multistep solver's step depends on the distances to the points it remembers. So a schedule with leaps has a row for
every such past that an image can have, read off the scheduler on a schedule of these very points: what diffusers itself
does when it is given that schedule, history included.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from addiffusion.errors import ConfigError
from addiffusion.sampling.solver_tables.histories import History, PndmHistory
from addiffusion.sampling.solver_tables.probe import Probe

_EQUAL_STEPS = ("DDIMScheduler",)
"""Schedulers that work their step out from a number of equal ones; theirs is the first order of a finish."""


class Node(NamedTuple):
    """A pass of the base schedule."""

    point: int
    """Of the schedule."""
    order: int
    """Earlier passes that the solver knows."""
    gaps: tuple[int, ...] = ()
    """Intervals back to each of them from the one after it, the latest first; empty where nobody leaps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Steps that an image can take on a base schedule."""

    history: History
    last: int
    """Index of the last point."""
    leap_steps: int | None

    def following(self, node: Node, steps: int) -> Node:
        """The pass after a step over some intervals; at the last point, that one again."""
        order = self.history.following(node.point, node.order)
        gaps = () if self.leap_steps is None else (steps, *node.gaps)[:order]
        return Node(min(node.point + steps, self.last), order, gaps)

    def leap_of(self, node: Node) -> Node | None:
        """The pass after a leap; None where it goes over the end."""
        steps = self.leap_steps
        return None if steps is None or node.point + steps > self.last else self.following(node, steps)

    def nodes(self) -> list[Node]:
        """Every pass that an image can come to, by index."""
        known: list[set[Node]] = [{Node(index, 0)} for index in range(self.last + 1)]
        for index in range(self.last):
            for node in known[index]:
                for after in (self.following(node, 1), self.leap_of(node)):
                    if after is not None:
                        known[after.point].add(after)
        return [node for nodes in known for node in sorted(nodes)]


def check_leaps(probe: Probe) -> None:
    """Refuse a solver whose steps must be equal.

    Raises:
        ConfigError: this one's.
    """
    if isinstance(probe.history, PndmHistory):
        kind = type(probe.scheduler).__name__
        raise ConfigError(
            f"sampler.leap_steps needs a solver with steps of any length, and {kind} has only equal ones: choose "
            "another sampler.solver, or leave leap out.",
            solver=kind,
        )


def steps_equally(probe: Probe) -> bool:
    """Whether a scheduler can only be asked for steps of the base schedule."""
    return not probe.names.isdisjoint(_EQUAL_STEPS)


def on_path(scheduler: Any, node: Node, steps: int) -> tuple[Any, int]:
    """A scheduler laid out on the points behind a pass, its own, and those after its step; and its index there.

    It has as many points as the base schedule, so that what diffusers does at the end of short schedules depends on
    that alone.

    Args:
        scheduler: of diffusers, with its base schedule laid out; it is left as it is.
        node: the pass.
        steps: intervals that its step goes over.
    """
    count = len(scheduler.timesteps)
    behind = _behind(node)
    ahead = range(node.point + steps, count)
    points = [*behind, node.point, *ahead]
    points = [points[0]] * (count - len(points)) + points
    path = copy.copy(scheduler)
    path.timesteps = scheduler.timesteps[points]
    if hasattr(scheduler, "sigmas"):
        path.sigmas = torch.cat([scheduler.sigmas[points], scheduler.sigmas[count:]])
    return path, count - len(ahead) - 1


def _behind(node: Node) -> Sequence[int]:
    """Points of the known passes, the earliest first."""
    points = [node.point]
    for gap in node.gaps:
        points.append(points[-1] - gap)
    return points[:0:-1]
