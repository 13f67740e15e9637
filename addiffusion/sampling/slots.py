"""Phase, schedule point and counts of each slot: who takes part in a pass, and how passes and decisions change them.

No tensors, no images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from addiffusion.actions import Action
from addiffusion.errors import ConfigError, SlotError
from addiffusion.sampling.choices import Choices
from addiffusion.sampling.moves import Moves, Pick
from addiffusion.sampling.slot import Phase, Slot, SlotState
from addiffusion.sampling.solver_tables.schedules import Schedule, Schedules


class Slots:
    """S slots. Plain loops: up to hundreds of slots they cost a tick less than operations on arrays would."""

    def __init__(self, count: int, schedules: Schedules, *, rows_per_pass: int, refine_passes: int) -> None:
        """Empty slots.

        Args:
            count: S.
            schedules: rows they point at.
            rows_per_pass: rows of the network batch that count as a pass of cost 1.
            refine_passes: k, passes of one refine.
        """
        self._slots = [Slot(schedule=schedules.first) for _ in range(count)]
        self._admitted = 0
        self._schedules = schedules
        self._rows_per_pass = rows_per_pass
        self._refine_passes = refine_passes
        self._choices = Choices(schedules, rows_per_pass=rows_per_pass, refine_passes=refine_passes)

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, slot: int) -> Slot:
        """To be read: only what is here changes it."""
        return self._slots[slot]

    def phase(self, slot: int) -> Phase:
        """Phase of a slot."""
        return self._slots[slot].phase

    def step(self, slot: int) -> int:
        """Schedule point i of its last base pass, or of the next one after a refine."""
        return self._slots[slot].step

    def cost(self, slot: int) -> float:
        """What its episode has cost so far, in guided passes."""
        return self._slots[slot].network_evals / self._rows_per_pass

    def row(self, slot: int) -> int:
        """Table row of the pass that comes next, or, of a slot that waits for its decision, of the last one."""
        return self._slots[slot].row

    @property
    def running_rows(self) -> int:
        """Rows of the network batch that all slots could take which can take part in the next tick."""
        return sum(1 + slot.guided for slot in self._slots if _RUNS[slot.phase])

    def pick(self, rows: int) -> Pick:
        """Slots of the next pass: those of the oldest episodes that can take part, as many as fit.

        The oldest one always fits, so none waits forever: it becomes the oldest when those before it have ended.

        Args:
            rows: R, of the network batch.
        """
        running = [number for number, slot in enumerate(self._slots) if _RUNS[slot.phase]]
        guided: list[int] = []
        unguided: list[int] = []
        for number in sorted(running, key=lambda number: self._slots[number].age):
            slot = self._slots[number]
            if slot.guided < rows:
                (guided if slot.guided else unguided).append(number)
                rows -= 1 + slot.guided
        return Pick(guided=tuple(guided), unguided=tuple(unguided))

    def having(self, phase: Phase) -> list[int]:
        """Slots in a phase, in order."""
        return [number for number, slot in enumerate(self._slots) if slot.phase is phase]

    def require(self, slot: int, *phases: Phase) -> None:
        """Raise a SlotError unless the slot exists and is in one of ``phases``."""
        if not 0 <= slot < len(self):
            raise SlotError(f"There is no slot {slot}: this engine has slots 0 to {len(self) - 1}.", slot=slot)
        phase = self._slots[slot].phase
        if phase not in phases:
            wanted = " or ".join(p.name for p in phases)
            raise SlotError(f"Slot {slot} is {phase.name}, but this call needs {wanted}.", slot=slot, phase=phase.name)

    def admit(self, slot: int, *, guided: bool, schedule: Schedule | None = None, max_cost: float = math.inf) -> None:
        """EMPTY to the first pass of an episode.

        Args:
            slot: where.
            guided: whether its passes take two rows of the network batch.
            schedule: its own; None is the first.
            max_cost: most that it may cost.

        Raises:
            SlotError: the slot is not empty.
            ConfigError: even a stop at the first decision costs more.
        """
        self.require(slot, Phase.EMPTY)
        self._admitted += 1
        schedule = schedule or self._schedules.first
        self.check_payable(schedule, guided=guided, max_cost=max_cost)
        new = Slot(phase=Phase.WARMUP, guided=guided, guided_by_itself=guided, schedule=schedule, max_cost=max_cost)
        new.age, new.row = self._admitted, schedule.entry_row[0]
        self._slots[slot] = new

    def check_payable(self, schedule: Schedule, *, guided: bool, max_cost: float) -> None:
        """Refuse a cap within which no image can be had.

        Args:
            schedule: of the image.
            guided: whether its passes take two rows.
            max_cost: the cap.

        Raises:
            ConfigError: even a stop at the first decision costs more.
        """
        least = schedule.least_passes * (1 + guided) / self._rows_per_pass
        if least > max_cost:
            raise ConfigError(
                f"max_cost={max_cost:g} is less than the {least:g} that warm-up, first decision and finish of an image "
                "cost: give more, or fewer sampler.warmup_steps or sampler.finish_steps.",
                max_cost=max_cost,
            )

    def full_cost(self, schedule: Schedule, *, guided: bool) -> float:
        """What a full run costs, in guided passes."""
        return schedule.full_passes * (1 + guided) / self._rows_per_pass

    def set_guided(self, slot: int, *, guided: bool) -> None:
        """Let the passes to come take two rows, or one; its max_cost leaves it as many passes as before."""
        at = self._slots[slot]
        rests = at.guided != at.guided_by_itself  # the next pass goes without guidance as it is
        spent = self.cost(slot) + rests / self._rows_per_pass
        at.max_cost = spent + (at.max_cost - spent) * (1 + guided) / (1 + at.guided_by_itself)
        at.guided, at.guided_by_itself = guided and not rests, guided

    def release(self, slot: int) -> None:
        """DONE, FAILED or DECIDING (its episode is given up) to EMPTY."""
        self.require(slot, Phase.DONE, Phase.FAILED, Phase.DECIDING)
        self.give_up(slot)

    def give_up(self, slot: int) -> None:
        """Any phase to EMPTY."""
        self.require(slot, *(phase for phase in Phase if phase is not Phase.EMPTY))
        self._slots[slot].phase = Phase.EMPTY

    def state(self, slot: int) -> SlotState:
        """Copy of a slot's phase, counts and table row."""
        at = self._slots[slot]
        return SlotState(**{name: getattr(at, name) for name in SlotState.__slots__})

    def put_back(self, slot: int, state: SlotState) -> None:
        """Set a slot to a state it was in."""
        for name in SlotState.__slots__:
            setattr(self._slots[slot], name, getattr(state, name))

    def bring_back(self, slot: int, state: SlotState) -> None:
        """Set a slot that waits for a decision to where another attempt at its image waited; what it spent stays."""
        at = self._slots[slot]
        at.step, at.row, at.left, at.came_back = state.step, state.row, state.left, True

    def after_pass(self, slots: Sequence[int], finite: Sequence[bool]) -> Moves:
        """Account for one network pass.

        Args:
            slots: those that took part.
            finite: for each whether its z0_pred is finite; if not, it is FAILED.
        """
        moves = Moves()
        for number, fine in zip(slots, finite, strict=True):
            slot = self._slots[number]
            slot.nfe += 1
            slot.network_evals += 1 + slot.guided
            slot.guided = slot.guided_by_itself
            slot.left -= 1
            if fine:
                self._passed(number, slot, moves)
            else:
                slot.phase = Phase.FAILED
        return moves

    def act(self, actions: Mapping[int, Action]) -> Moves:
        """Take decisions: all of them, or none if one is refused.

        Raises:
            SlotError: a slot is not DECIDING, can't take the action, or could not pay for it.
        """
        for number, action in actions.items():
            self.require(number, Phase.DECIDING)
            hindrance = self._choices.hindrance(self._slots[number], action)
            if hindrance is not None:
                raise SlotError(
                    f"Slot {number} can't {action.name.lower()}: {hindrance}.", slot=number, action=action.name
                )
        moves = Moves()
        for number in sorted(actions):
            self._decided(number, actions[number], moves)
        return moves

    def allowed(self, number: int) -> tuple[bool, ...]:
        """For each action whether a slot that waits for one can take it, and pay for it and for an end after it."""
        return self._choices.allowed(self._slots[number])

    def _passed(self, number: int, slot: Slot, moves: Moves) -> None:
        if slot.phase is Phase.STEPPING:
            slot.phase = Phase.DECIDING
        elif slot.phase is Phase.WARMUP:
            self._continue(number, slot, moves)
        elif slot.left:
            if slot.phase is Phase.REFINING:
                moves.refine.append(number)
            else:
                slot.row = self._schedules.next_row[slot.row]
                moves.commit.append(number)
        elif slot.phase is Phase.REFINING and slot.step < slot.schedule.last_step:
            self._advance(slot)
            # The solver starts anew at the schedule point: a refined latent is not where its history leads.
            slot.row = slot.schedule.entry_row[slot.step]
            moves.renoise.append(number)
        else:
            slot.phase = Phase.DONE

    def _decided(self, number: int, action: Action, moves: Moves) -> None:
        slot = self._slots[number]
        slot.came_back = False
        if action == Action.REFINE:
            slot.phase, slot.left = Phase.REFINING, self._refine_passes
            slot.row = slot.schedule.refine_row[slot.step]
            moves.refine.append(number)
        elif action == Action.REDRAW:
            slot.step, slot.redraws, slot.evals_before_attempt = 0, slot.redraws + 1, slot.network_evals
            slot.phase, slot.row = Phase.WARMUP, slot.schedule.entry_row[0]
            moves.redraw.append(number)
        elif action == Action.LEAP:
            moves.leap[number] = slot.row = self._schedules.leap_row[slot.row]
            self._continue(number, slot, moves, steps=slot.schedule.sampler.leap_steps or 1)
        elif action == Action.UNGUIDED:
            slot.guided = False
            self._continue(number, slot, moves)
        elif action == Action.CONTINUE and slot.step < slot.schedule.last_step:
            self._continue(number, slot, moves)
        elif action == Action.STOP and slot.schedule.finish_count[slot.step]:
            slot.phase, slot.left = Phase.FINISHING, slot.schedule.finish_count[slot.step]
            slot.row = slot.schedule.finish_start[slot.step]
            moves.commit.append(number)
        else:
            slot.phase = Phase.DONE

    def _continue(self, number: int, slot: Slot, moves: Moves, steps: int = 1) -> None:
        """Commit the step."""
        slot.row = self._schedules.next_row[slot.row]
        self._advance(slot, steps)
        moves.commit.append(number)

    def _advance(self, slot: Slot, steps: int = 1) -> None:
        """On to the next schedule point, or one after it."""
        slot.step += steps
        slot.phase = Phase.WARMUP if slot.step < slot.schedule.sampler.warmup_steps else Phase.STEPPING


_RUNS = tuple(Phase.WARMUP <= phase <= Phase.FINISHING for phase in Phase)
