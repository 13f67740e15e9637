"""The life of a slot, and what each network pass costs it. Arrays over slots, no tensors, no images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from addiffusion.actions import Action
from addiffusion.errors import SlotError
from addiffusion.sampling.table import SolverTable


class Phase(IntEnum):
    """What a slot is doing. Those from WARMUP to FINISHING take part in the next tick."""

    EMPTY = 0
    """Free for the next episode."""
    WARMUP = 1
    """Forced continues at the start of an episode."""
    STEPPING = 2
    """Its next pass ends in a decision."""
    REFINING = 3
    """Running the passes of a refine."""
    FINISHING = 4
    """Stopped, and arriving at t = 0 by the finish passes."""
    DECIDING = 5
    """Waits for an action."""
    DONE = 6
    """Its z0_pred is the result of the episode."""
    FAILED = 7
    """The network returned values that are not finite: the episode has no result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotInfo:
    """Where an episode stands."""

    step: int
    """Decision index i: the schedule point of its last base pass, or of the next one after a refine."""
    timestep: float
    """t: training timestep of that schedule point."""
    nfe: int
    """Network passes so far."""
    network_evals: int
    """Passes through the network with each half of a guidance pair counted: 2 per NFE with guidance, else 1."""
    attention_entropy: float
    """Entropy of the last attention map of the prompt's words, 1 = spread evenly. Maps cost extra compute, so they
    exist only after a refine with attention masks; 0.0 before that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """What must happen to the latents after a pass or a decision."""

    commit: NDArray[np.bool_]
    """(S,) slots whose latent becomes the solver's next one."""
    refine: NDArray[np.int64]
    """Slots whose latent becomes the input of a refine pass."""
    renoise: NDArray[np.int64]
    """Slots whose refined z0_pred is noised to their schedule point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotState:
    """Where one slot stands, to come back to."""

    phase: int
    step: int
    nfe: int
    row: int
    left: int


class Slots:
    """S slots, each a pointer to a row of the solver table plus a count of the passes left in its phase."""

    def __init__(self, count: int, table: SolverTable, *, warmup_steps: int, refine_passes: int) -> None:
        self._table = table
        self._warmup_steps = warmup_steps
        self._refine_passes = refine_passes
        self.phase = np.zeros(count, np.int64)
        self.step = np.zeros(count, np.int64)
        self.nfe = np.zeros(count, np.int64)
        self._row = np.zeros(count, np.int64)
        self._left = np.zeros(count, np.int64)

    def __len__(self) -> int:
        return len(self.phase)

    @property
    def running(self) -> NDArray[np.bool_]:
        """(S,) slots that take part in the next tick."""
        return (self.phase >= Phase.WARMUP) & (self.phase <= Phase.FINISHING)

    @property
    def rows(self) -> NDArray[np.int64]:
        """(S,) table row of each slot's pass; an undecided slot repeats its last one, idle slots run the dead row."""
        idle = (self.phase == Phase.EMPTY) | (self.phase >= Phase.DONE)
        return np.where(idle, self._table.dead_row, self._row)

    def having(self, *phases: Phase) -> list[int]:
        """Slots in one of ``phases``, in order."""
        return [int(slot) for slot in np.flatnonzero(np.isin(self.phase, phases))]

    def require(self, slot: int, *phases: Phase) -> None:
        """Raise a SlotError unless the slot exists and is in one of ``phases``."""
        if not 0 <= slot < len(self):
            raise SlotError(f"There is no slot {slot}: this engine has slots 0 to {len(self) - 1}.", slot=slot)
        phase = Phase(int(self.phase[slot]))
        if phase not in phases:
            wanted = " or ".join(p.name for p in phases)
            raise SlotError(f"Slot {slot} is {phase.name}, but this call needs {wanted}.", slot=slot, phase=phase.name)

    def admit(self, slot: int) -> None:
        """EMPTY to the first pass of an episode."""
        self.require(slot, Phase.EMPTY)
        self.phase[slot] = Phase.WARMUP
        self.step[slot] = self.nfe[slot] = self._left[slot] = 0
        self._row[slot] = self._table.entry_row[0]

    def release(self, slot: int) -> None:
        """DONE, FAILED or DECIDING (its episode is given up) to EMPTY."""
        self.require(slot, Phase.DONE, Phase.FAILED, Phase.DECIDING)
        self.phase[slot] = Phase.EMPTY

    def state(self, slot: int) -> SlotState:
        """Where a slot stands."""
        columns = (self.phase, self.step, self.nfe, self._row, self._left)
        phase, step, nfe, row, left = (int(column[slot]) for column in columns)
        return SlotState(phase=phase, step=step, nfe=nfe, row=row, left=left)

    def put_back(self, slot: int, state: SlotState) -> None:
        """Let a slot stand where it stood."""
        self.phase[slot], self.step[slot], self.nfe[slot] = state.phase, state.step, state.nfe
        self._row[slot], self._left[slot] = state.row, state.left

    def after_pass(self, finite: NDArray[np.bool_]) -> Moves:
        """Account for one network pass of every running slot.

        Args:
            finite: (S,) slots whose z0_pred is finite; a running slot without it is FAILED.
        """
        running = self.running
        self.nfe[running] += 1
        self.phase[running & ~finite] = Phase.FAILED
        warming, stepping, refining, finishing = (self.phase == phase for phase in _PASSES)
        self.phase[stepping] = Phase.DECIDING
        self._left[refining | finishing] -= 1
        passes_left = self._left > 0
        self.phase[finishing & ~passes_left] = Phase.DONE
        refined = refining & ~passes_left
        at_end = self.step == self._table.num_steps - 1
        self.phase[refined & at_end] = Phase.DONE
        arriving = finishing & passes_left
        self._row[warming | arriving] = self._table.next_row[self._row[warming | arriving]]
        self._advance(warming)
        self._advance(refined & ~at_end)
        self._forget(refined & ~at_end)
        return Moves(
            commit=warming | arriving,
            refine=np.flatnonzero(refining & passes_left),
            renoise=np.flatnonzero(refined & ~at_end),
        )

    def act(self, actions: Mapping[int, Action]) -> Moves:
        """Take decisions: all of them, or none if one is refused.

        Raises:
            SlotError: a slot is not DECIDING.
        """
        for slot in actions:
            self.require(slot, Phase.DECIDING)
        chosen = np.full(len(self), -1)
        chosen[list(actions)] = [int(action) for action in actions.values()]
        stop, refine, proceed = (chosen == action for action in (Action.STOP, Action.REFINE, Action.CONTINUE))
        at_end = self.step == self._table.num_steps - 1
        finish = stop & (self._table.finish_count[self.step] > 0)
        self._start_finish(finish)
        self._start_refine(refine)
        self.phase[(stop & ~finish) | (proceed & at_end)] = Phase.DONE
        on = proceed & ~at_end
        self._row[on] = self._table.next_row[self._row[on]]
        self._advance(on)
        return Moves(
            commit=on | finish,
            refine=np.flatnonzero(refine),
            renoise=np.zeros(0, np.int64),
        )

    def _advance(self, which: NDArray[np.bool_]) -> None:
        """On to the next schedule point."""
        self.step[which] += 1
        self.phase[which] = np.where(self.step[which] < self._warmup_steps, Phase.WARMUP, Phase.STEPPING)

    def _forget(self, which: NDArray[np.bool_]) -> None:
        """The solver starts anew at the schedule point: a refined latent is not where its history leads."""
        self._row[which] = self._table.entry_row[self.step[which]]

    def _start_finish(self, which: NDArray[np.bool_]) -> None:
        self.phase[which] = Phase.FINISHING
        self._row[which] = self._table.finish_start[self.step[which]]
        self._left[which] = self._table.finish_count[self.step[which]]

    def _start_refine(self, which: NDArray[np.bool_]) -> None:
        self.phase[which] = Phase.REFINING
        self._row[which] = self._table.refine_row[self.step[which]]
        self._left[which] = self._refine_passes


_PASSES = (Phase.WARMUP, Phase.STEPPING, Phase.REFINING, Phase.FINISHING)
