"""Which actions a slot that waits for a decision can take, and pay for."""

from __future__ import annotations

import math

from addiffusion.actions import Action
from addiffusion.sampling.slot import Slot
from addiffusion.sampling.solver_tables.schedules import Schedules


class Choices:
    """Actions of slots that wait for a decision."""

    def __init__(self, schedules: Schedules, *, rows_per_pass: int, refine_passes: int) -> None:
        """Of one engine.

        Args:
            schedules: rows that slots point at.
            rows_per_pass: rows of the network batch that count as a pass of cost 1.
            refine_passes: k, passes of one refine.
        """
        self._schedules, self._rows_per_pass, self._refine_passes = schedules, rows_per_pass, refine_passes

    def allowed(self, slot: Slot) -> tuple[bool, ...]:
        """For each action whether it can be taken, and paid for with an end after it."""
        possible = self._possible(slot)
        if slot.max_cost == math.inf:
            return possible
        return tuple([can and self._pays(slot, action) for action, can in zip(_ACTIONS, possible, strict=True)])

    def hindrance(self, slot: Slot, action: Action) -> str | None:
        """Why an action can't be taken; None where it can."""
        if not self._possible(slot)[action]:
            return _WHY_NOT[action].format(redraws=slot.redraws)
        return None if self._pays(slot, action) else f"that would cost more than its max_cost={slot.max_cost:g}"

    def _possible(self, slot: Slot) -> tuple[bool, ...]:
        """In the order of ``Action``, whatever it costs."""
        return (
            True,
            True,
            not slot.came_back,
            self._schedules.leap_row[slot.row] >= 0,
            slot.guided and slot.step < slot.schedule.last_step,
            slot.redraws < slot.schedule.sampler.max_redraws,
        )

    def _pays(self, slot: Slot, action: Action) -> bool:
        return (slot.network_evals + self._rows_of(slot, action)) / self._rows_per_pass <= slot.max_cost

    def _rows_of(self, slot: Slot, action: Action) -> int:
        """Rows of an action that can be taken and of a stop at the next decision, or of the end it is."""
        schedule = slot.schedule
        ends = schedule.finish_count
        if action is Action.REDRAW:
            return self._rows_of_attempt(slot)
        if action is Action.LEAP:
            passes = 1 + ends[slot.step + (schedule.sampler.leap_steps or 1)]
        elif action is Action.STOP:
            passes = ends[slot.step]
        else:
            passes = 1 + ends[slot.step + 1] if slot.step < schedule.last_step else 0
            passes += self._refine_passes * (action is Action.REFINE)
        return passes * (1 + slot.guided_by_itself) - (action is Action.UNGUIDED)

    @staticmethod
    def _rows_of_attempt(slot: Slot) -> int:
        """Rows of another attempt that comes as far as the present one did, and of a stop there.

        One that could pay for less would have to end before anybody has seen it.
        """
        guided = 1 + slot.guided_by_itself
        present = slot.network_evals - slot.evals_before_attempt + slot.schedule.finish_count[slot.step] * guided
        return max(present, slot.schedule.least_passes * guided)


_ACTIONS = tuple(Action)
_WHY_NOT = {
    Action.REFINE: "it has come back to an earlier attempt, whose attention was not kept",
    Action.LEAP: "sampler.leap_steps is null, or goes over the end of the schedule from here",
    Action.UNGUIDED: "no guided pass follows",
    Action.REDRAW: "it has begun again {redraws} times, which is sampler.max_redraws",
}
