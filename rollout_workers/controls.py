"""Episodes whose actions are known without asking a policy: full runs, static samplers, stopping rules."""

from __future__ import annotations

from addiffusion.actions import Action
from addiffusion.sampling.engine import Engine
from rollout_workers.episode_builder import Draft


def forced_action(draft: Draft, engine: Engine, slot: int) -> Action | None:
    """What the ticket of a deciding slot prescribes; None asks the policy."""
    ticket = draft.ticket
    if ticket.forced is not Action.CONTINUE or ticket.stop_rule is None:
        return ticket.forced
    at_step = ticket.stop_rule.at_step
    if at_step is not None:
        step = engine.info(slot).step
        if step >= at_step:
            return Action.STOP
        if ticket.stop_rule.refine_last and step == at_step - 1:
            return Action.REFINE
    below = ticket.stop_rule.change_below
    if below is not None and _change(draft, engine, slot) < below:
        return Action.STOP
    return Action.CONTINUE


def _change(draft: Draft, engine: Engine, slot: int) -> float:
    """|z0 - z0 before| / |z0 before| of this decision, which becomes the one before; infinite at the first."""
    before, draft.z0_before = draft.z0_before, engine.z0_pred[slot].clone()
    if before is None:
        return float("inf")
    return float((draft.z0_before - before).norm() / before.norm().clamp_min(1e-12))
