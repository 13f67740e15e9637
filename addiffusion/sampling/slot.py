"""One slot: its phase, schedule point and counts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

from addiffusion.sampling.solver_tables.schedules import Schedule


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
    cost: float
    """What was spent in guided passes; one without guidance is half of one. NFE on a model that is never guided."""
    guidance_scale: float
    num_steps: int
    """Of its schedule."""
    solver_memory: int
    """Entries of a slot's state that its solver needs, the latent among them."""
    cost_left_frac: float
    """Share of its max_cost that is not spent; 1 without one."""
    redraws: int
    """Times it began again."""
    attention_entropy: float
    """Entropy of the last attention map of the prompt's words, 1 = spread evenly. Maps cost extra compute, so they
    exist only after a refine with attention masks; 0.0 before that."""


@dataclass(slots=True, kw_only=True)
class Slot:
    """A pointer to a row of the solver table, and a count of the passes left in its phase."""

    phase: Phase = Phase.EMPTY
    step: int = 0
    nfe: int = 0
    network_evals: int = 0
    row: int = 0
    left: int = 0
    guided: bool = False
    """Whether its next pass takes two rows."""
    guided_by_itself: bool = False
    """Whether its passes do where no action says otherwise."""
    redraws: int = 0
    evals_before_attempt: int = 0
    """Of network_evals those of the attempts before the present one."""
    came_back: bool = False
    """Whether it waits with the latent of an earlier attempt."""
    age: int = 0
    """Number of its episode, in order of admission."""
    schedule: Schedule
    max_cost: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotState:
    """Phase, counts and table row of one slot, to be put back."""

    phase: Phase
    step: int
    nfe: int
    network_evals: int
    row: int
    left: int
