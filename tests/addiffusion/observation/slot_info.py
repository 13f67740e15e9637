"""A slot that is looked at."""

from __future__ import annotations

from addiffusion.sampling.slot import SlotInfo

INFO = SlotInfo(
    step=10,
    timestep=781.0,
    nfe=12,
    network_evals=24,
    cost=12.0,
    guidance_scale=3.0,
    num_steps=25,
    solver_memory=3,
    cost_left_frac=0.25,
    attention_entropy=0.5,
    redraws=0,
)
