"""The slot life cycle against a plain model of one slot at a time."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from diffusers import DPMSolverMultistepScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from addiffusion.actions import Action
from addiffusion.config import RefineSection, SamplerSection
from addiffusion.errors import SlotError
from addiffusion.sampling.slot import Phase
from addiffusion.sampling.slots import Slots
from addiffusion.sampling.solver_tables.build import build_table
from addiffusion.sampling.solver_tables.histories import DpmHistory
from addiffusion.sampling.solver_tables.leaps import Steps
from addiffusion.sampling.solver_tables.schedules import Schedules
from tests.addiffusion.sampling.metered import MeteredBackbone

COUNT, STEPS, WARMUP, PASSES, FINISH, LEAP = 3, 6, 2, 2, 3, 2
ORDER, REDRAWS = 3, 2
TABLE = build_table(
    DPMSolverMultistepScheduler(solver_order=ORDER, timestep_spacing="trailing"),
    STEPS,
    finish_steps=FINISH,
    r_noise=0.5,
    finish_solver="dpm++2m",
    leap_steps=LEAP,
)
NODES = Steps(history=DpmHistory(ORDER), last=STEPS - 1, leap_steps=LEAP).nodes()
SCHEDULES = Schedules(
    MeteredBackbone(),
    SamplerSection(num_steps=STEPS, warmup_steps=WARMUP, finish_steps=FINISH, leap_steps=LEAP),
    RefineSection(),
    table=TABLE,
)
RUNNING = (Phase.WARMUP, Phase.STEPPING, Phase.REFINING, Phase.FINISHING)
slot_indices = st.integers(0, COUNT - 1)


def make_slots() -> Slots:
    return Slots(COUNT, SCHEDULES, rows_per_pass=2, refine_passes=PASSES)


@dataclass
class ModelSlot:
    """One slot, told as a story instead of as arrays."""

    phase: Phase = Phase.EMPTY
    step: int = 0
    nfe: int = 0
    evals: int = 0
    passes: int = 0
    gaps: tuple[int, ...] = ()
    """Intervals back to the earlier predictions that the multistep solver remembers at this step."""
    unguided: bool = False
    redraws: int = 0

    def run(self, finite: bool) -> None:
        self.nfe += 1
        self.evals += 1 if self.unguided else 2
        self.unguided = False
        if not finite:
            self.phase = Phase.FAILED
        elif self.phase is Phase.STEPPING:
            self.phase = Phase.DECIDING
        elif self.phase is Phase.WARMUP:
            self.go_on(1, *self.gaps)
        else:
            self.passes -= 1
            if self.passes == 0 and self.phase is Phase.REFINING:
                self.go_on()
            elif self.passes == 0:
                self.phase = Phase.DONE

    def go_on(self, *gaps: int) -> None:
        if self.step == STEPS - 1:
            self.phase = Phase.DONE
            return
        self.step += gaps[0] if gaps else 1
        self.gaps = gaps[: ORDER - 1]
        self.phase = Phase.WARMUP if self.step < WARMUP else Phase.STEPPING

    def allows(self, action: Action) -> bool:
        return {
            Action.LEAP: self.step + LEAP < STEPS,
            Action.UNGUIDED: self.step + 1 < STEPS,
            Action.REDRAW: self.redraws < REDRAWS,
        }.get(action, True)

    def act(self, action: Action) -> None:
        left = min(FINISH, STEPS - 1 - self.step)
        if action in (Action.CONTINUE, Action.UNGUIDED):
            self.unguided = action is Action.UNGUIDED
            self.go_on(1, *self.gaps)
        elif action is Action.LEAP:
            self.go_on(LEAP, *self.gaps)
        elif action is Action.REDRAW:
            self.phase, self.step, self.gaps, self.redraws = Phase.WARMUP, 0, (), self.redraws + 1
        elif action is Action.REFINE:
            self.phase, self.passes = Phase.REFINING, PASSES
        elif left:
            self.phase, self.passes = Phase.FINISHING, left
        else:
            self.phase = Phase.DONE

    @property
    def timestep(self) -> float:
        """Timestep of its next pass, as the definition of each phase has it."""
        base = float(TABLE.timesteps[self.step])
        if self.phase is Phase.REFINING:
            return round(0.5 * base)
        if self.phase is Phase.FINISHING:
            total = min(FINISH, STEPS - 1 - self.step)
            return round(float(TABLE.timesteps[self.step + 1]) * self.passes / total)
        return base


class SlotLife(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.slots = make_slots()
        self.model = [ModelSlot() for _ in range(COUNT)]

    @rule(slot=slot_indices)
    def admit(self, slot: int) -> None:
        if self.model[slot].phase is Phase.EMPTY:
            self.slots.admit(slot, guided=True)
            self.model[slot] = ModelSlot(phase=Phase.WARMUP)
        else:
            with pytest.raises(SlotError):
                self.slots.admit(slot, guided=True)

    @rule(slot=slot_indices)
    def release(self, slot: int) -> None:
        if self.model[slot].phase in (Phase.DONE, Phase.FAILED, Phase.DECIDING):
            self.slots.release(slot)
            self.model[slot].phase = Phase.EMPTY
        else:
            with pytest.raises(SlotError):
                self.slots.release(slot)

    @precondition(lambda self: any(slot.phase in RUNNING for slot in self.model))
    @rule(broken=st.one_of(st.none(), st.none(), st.none(), slot_indices), rows=st.integers(2, 2 * COUNT))
    def run_pass(self, broken: int | None, rows: int) -> None:
        pick = self.slots.pick(rows)
        running = [index for index, slot in enumerate(self.model) if slot.phase in RUNNING]
        assert pick.rows <= rows
        assert len(pick.slots) >= min(rows // 2, len(running))
        self.slots.after_pass(pick.slots, [slot != broken for slot in pick.slots])
        for index in pick.slots:
            assert index in running
            self.model[index].run(index != broken)

    @rule(actions=st.dictionaries(slot_indices, st.sampled_from(Action), min_size=1))
    def act(self, actions: dict[int, Action]) -> None:
        model = self.model
        if all(model[slot].phase is Phase.DECIDING and model[slot].allows(action) for slot, action in actions.items()):
            self.slots.act(actions)
            for slot, action in actions.items():
                self.model[slot].act(action)
        else:
            with pytest.raises(SlotError):
                self.slots.act(actions)

    @precondition(lambda self: any(slot.phase is Phase.DECIDING for slot in self.model))
    @rule(action=st.sampled_from(Action))
    def act_where_possible(self, action: Action) -> None:
        deciding = [slot for slot in self.slots.having(Phase.DECIDING) if self.model[slot].allows(action)]
        self.slots.act(dict.fromkeys(deciding, action))
        for slot in deciding:
            self.model[slot].act(action)

    @invariant()
    def agrees_with_the_model(self) -> None:
        assert [self.slots.phase(index) for index in range(COUNT)] == [slot.phase for slot in self.model]
        for index, slot in enumerate(self.model):
            if slot.phase is not Phase.EMPTY:
                assert (self.slots.step(index), self.slots[index].nfe) == (slot.step, slot.nfe)
        for index, slot in enumerate(self.model):
            if slot.phase in (*RUNNING, Phase.DECIDING):
                assert TABLE.rows[0, self.slots.row(index)] == slot.timestep
                assert self.slots[index].network_evals == slot.evals
                assert self.slots[index].redraws == slot.redraws
            if slot.phase in (Phase.WARMUP, Phase.STEPPING, Phase.DECIDING):
                assert NODES[self.slots.row(index)] == (slot.step, len(slot.gaps), slot.gaps)
        assert self.slots.running_rows == sum(2 - slot.unguided for slot in self.model if slot.phase in RUNNING)


TestSlotLife = SlotLife.TestCase
TestSlotLife.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)


@settings(max_examples=40, deadline=None)
@given(guided=st.lists(st.booleans(), min_size=1, max_size=9), rows=st.integers(2, 12), data=st.data())
def test_the_oldest_go_first_and_rows_are_never_exceeded(guided: list[bool], rows: int, data: st.DataObject) -> None:
    slots = Slots(len(guided), SCHEDULES, rows_per_pass=2, refine_passes=PASSES)
    order = data.draw(st.permutations(range(len(guided))))
    for slot in order:
        slots.admit(slot, guided=guided[slot])
    pick = slots.pick(rows)
    assert order[0] in pick.slots
    assert all(guided[slot] for slot in pick.guided)
    assert not any(guided[slot] for slot in pick.unguided)
    assert pick.rows == sum(1 + guided[slot] for slot in pick.slots) <= rows
    for place, slot in enumerate(order):
        if slot not in pick.slots:  # the older ones that were picked left too few rows for it
            assert rows - sum(1 + guided[older] for older in order[:place] if older in pick.slots) < 1 + guided[slot]


@given(
    lengths=st.lists(st.integers(WARMUP, STEPS - 1), min_size=1, max_size=12),
    guided=st.lists(st.booleans(), min_size=12, max_size=12),
    rows=st.integers(2, 5),
    shortest=st.integers(1, 2),
)
@settings(max_examples=40, deadline=None)
def test_no_slot_starves(lengths: list[int], guided: list[bool], rows: int, shortest: int) -> None:
    """Slots that are refilled at once, decisions that come late: each episode takes part within a bounded time."""
    slots = Slots(3, SCHEDULES, rows_per_pass=2, refine_passes=PASSES)
    waiting, ends, ticks = list(enumerate(lengths)), dict[int, int](), 0
    while waiting or ends:
        for slot in slots.having(Phase.EMPTY):
            if waiting:
                number, ends[slot] = waiting.pop(0)
                slots.admit(slot, guided=guided[number])
        if slots.running_rows:
            pick = slots.pick(rows)
            slots.after_pass(pick.slots, [True] * len(pick.slots))
        ticks += 1
        assert ticks <= 2 * (STEPS + FINISH) * len(lengths)
        for slot in slots.having(Phase.DECIDING) if ticks % shortest == 0 else []:
            stops = slots.step(slot) >= ends[slot]
            slots.act({slot: Action.STOP if stops else Action.CONTINUE})
        for slot in slots.having(Phase.DONE):
            slots.release(slot)
            del ends[slot]


def test_an_unknown_slot_is_named() -> None:
    with pytest.raises(SlotError, match="There is no slot 3: this engine has slots 0 to 2"):
        make_slots().admit(3, guided=False)


def test_a_refusal_names_slot_phase_and_what_is_needed() -> None:
    with pytest.raises(SlotError, match="Slot 1 is EMPTY, but this call needs DECIDING") as caught:
        make_slots().act({1: Action.STOP})
    assert caught.value.facts == {"slot": 1, "phase": "EMPTY"}
