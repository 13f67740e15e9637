"""Phase, schedule point and counts of each slot: who takes part in a pass, and how passes and decisions change them.

No tensors, no images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from addiffusion.actions import Action
from addiffusion.errors import SlotError
from addiffusion.sampling.moves import Moves, Pick
from addiffusion.sampling.solver_tables.table import SolverTable


class Phase(IntEnum):
    """Phase of a slot. Those from WARMUP to FINISHING can take part in the next tick."""

    EMPTY = 0
    """Free for the next episode."""
    WARMUP = 1
    """Forced continues at the start of an episode."""
    STEPPING = 2
    """Its next pass ends in a decision."""
    REFINING = 3
    """Running the passes of a refine."""
    FINISHING = 4
    """Stopped; runs the finish passes that bring it to t = 0."""
    DECIDING = 5
    """Waits for an action."""
    DONE = 6
    """Its z0_pred is the result of the episode."""
    FAILED = 7
    """The network returned values that are not finite: the episode has no result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotInfo:
    """Schedule point, NFE and attention entropy of an episode."""

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


@dataclass(slots=True, kw_only=True)
class _Slot:
    """A pointer to a row of the solver table, and a count of the passes left in its phase."""

    phase: Phase = Phase.EMPTY
    step: int = 0
    nfe: int = 0
    network_evals: int = 0
    row: int = 0
    left: int = 0
    guided: bool = False
    age: int = 0
    """Number of its episode, in order of admission."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotState:
    """Phase, counts and table row of one slot, to be put back."""

    phase: Phase
    step: int
    nfe: int
    network_evals: int
    row: int
    left: int


class Slots:
    """S slots. Plain loops: up to hundreds of slots they cost a tick less than operations on arrays would."""

    def __init__(self, count: int, table: SolverTable, *, warmup_steps: int, refine_passes: int) -> None:
        """Empty slots.

        Args:
            count: S.
            table: rows they point at.
            warmup_steps: forced continues at the start of an episode.
            refine_passes: k, passes of one refine.
        """
        self._slots = [_Slot() for _ in range(count)]
        self._admitted = 0
        self._warmup_steps = warmup_steps
        self._refine_passes = refine_passes
        self._last_step = table.num_steps - 1
        self._next_row: list[int] = table.next_row.tolist()
        self._entry_row: list[int] = table.entry_row.tolist()
        self._refine_row: list[int] = table.refine_row.tolist()
        self._finish_start: list[int] = table.finish_start.tolist()
        self._finish_count: list[int] = table.finish_count.tolist()

    def __len__(self) -> int:
        return len(self._slots)

    def phase(self, slot: int) -> Phase:
        """Phase of a slot."""
        return self._slots[slot].phase

    def step(self, slot: int) -> int:
        """Schedule point i of its last base pass, or of the next one after a refine."""
        return self._slots[slot].step

    def nfe(self, slot: int) -> int:
        """Passes of its episode so far."""
        return self._slots[slot].nfe

    def network_evals(self, slot: int) -> int:
        """Rows of the network batch that its episode has taken so far."""
        return self._slots[slot].network_evals

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

    def admit(self, slot: int, *, guided: bool) -> None:
        """EMPTY to the first pass of an episode, whose passes take two rows of the network batch or one."""
        self.require(slot, Phase.EMPTY)
        self._admitted += 1
        self._slots[slot] = _Slot(phase=Phase.WARMUP, row=self._entry_row[0], guided=guided, age=self._admitted)

    def release(self, slot: int) -> None:
        """DONE, FAILED or DECIDING (its episode is given up) to EMPTY."""
        self.require(slot, Phase.DONE, Phase.FAILED, Phase.DECIDING)
        self._slots[slot].phase = Phase.EMPTY

    def state(self, slot: int) -> SlotState:
        """Copy of a slot's phase, counts and table row."""
        at = self._slots[slot]
        return SlotState(**{name: getattr(at, name) for name in SlotState.__slots__})

    def put_back(self, slot: int, state: SlotState) -> None:
        """Set a slot to a state it was in."""
        for name in SlotState.__slots__:
            setattr(self._slots[slot], name, getattr(state, name))

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
            slot.left -= 1
            if fine:
                self._passed(number, slot, moves)
            else:
                slot.phase = Phase.FAILED
        return moves

    def act(self, actions: Mapping[int, Action]) -> Moves:
        """Take decisions: all of them, or none if one is refused.

        Raises:
            SlotError: a slot is not DECIDING.
        """
        for number in actions:
            self.require(number, Phase.DECIDING)
        moves = Moves()
        for number in sorted(actions):
            self._decided(number, actions[number], moves)
        return moves

    def _passed(self, number: int, slot: _Slot, moves: Moves) -> None:
        if slot.phase is Phase.STEPPING:
            slot.phase = Phase.DECIDING
        elif slot.phase is Phase.WARMUP:
            self._continue(number, slot, moves)
        elif slot.left:
            if slot.phase is Phase.REFINING:
                moves.refine.append(number)
            else:
                slot.row = self._next_row[slot.row]
                moves.commit.append(number)
        elif slot.phase is Phase.REFINING and slot.step < self._last_step:
            self._advance(slot)
            # The solver starts anew at the schedule point: a refined latent is not where its history leads.
            slot.row = self._entry_row[slot.step]
            moves.renoise.append(number)
        else:
            slot.phase = Phase.DONE

    def _decided(self, number: int, action: Action, moves: Moves) -> None:
        slot = self._slots[number]
        if action == Action.REFINE:
            slot.phase, slot.left = Phase.REFINING, self._refine_passes
            slot.row = self._refine_row[slot.step]
            moves.refine.append(number)
        elif action == Action.CONTINUE and slot.step < self._last_step:
            self._continue(number, slot, moves)
        elif action == Action.STOP and self._finish_count[slot.step]:
            slot.phase, slot.left = Phase.FINISHING, self._finish_count[slot.step]
            slot.row = self._finish_start[slot.step]
            moves.commit.append(number)
        else:
            slot.phase = Phase.DONE

    def _continue(self, number: int, slot: _Slot, moves: Moves) -> None:
        """Commit the step."""
        slot.row = self._next_row[slot.row]
        self._advance(slot)
        moves.commit.append(number)

    def _advance(self, slot: _Slot) -> None:
        """On to the next schedule point."""
        slot.step += 1
        slot.phase = Phase.WARMUP if slot.step < self._warmup_steps else Phase.STEPPING


_RUNS = tuple(Phase.WARMUP <= phase <= Phase.FINISHING for phase in Phase)
