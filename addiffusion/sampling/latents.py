"""The tensors of all slots: latents, solver histories and clean predictions, moved by one update per tick."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from addiffusion.sampling.slots import SlotState
from addiffusion.sampling.solver_tables.table import HEAD, SolverTable
from addiffusion.torch_typed import from_numpy

Network = Callable[
    [Float[Tensor, "slot c h w"], Float[Tensor, "slot 1 1 1"], Float[Tensor, " slot"]], Float[Tensor, "slot c h w"]
]
"""Raw output of latents, factors that scale them for the network, and timesteps."""
LatentCopies: TypeAlias = tuple[Float[Tensor, "entry c h w"], Float[Tensor, "entry c h w"], Float[Tensor, "c h w"]]
"""A slot's state, the state its last pass leads to, and its clean prediction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSnapshot:
    """State of a slot and its episode at a decision (``Engine.snapshot``)."""

    state: SlotState
    latents: LatentCopies
    solver_noise: UInt8[Tensor, " byte"]
    """State of the episode's own stream of solver noise."""


class Latents:
    """State of S slots in float32: entry 0 is the latent z, the others are what a multistep solver remembers.

    The update of a tick is one gather of coefficients and one multiply-add for each entry over all slots at once.
    Being elementwise it can't depend on where a slot lies in the batch, which a batched matrix product does not
    promise.
    """

    def __init__(self, table: SolverTable, slots: int, shape: tuple[int, int, int], device: torch.device) -> None:
        """Latents of zeros.

        Args:
            table: coefficients of every pass.
            slots: S.
            shape: (c, h, w) of one latent.
            device: where they lie.
        """
        self._coefficients = _by_source(table)
        self._noise_levels = table.rows[HEAD.index("noise")] if table.draws_noise else None
        self._rows: Sequence[int] = ()
        self._state = torch.zeros(table.state_size, slots, *shape, device=device)
        self._next = self._state
        self.z0_pred: Float[Tensor, "slot c h w"] = torch.zeros(slots, *shape, device=device)
        """One-step clean prediction of each slot. Later ticks never change this tensor: they make a new one."""

    def step(self, rows: Sequence[int], running: Sequence[bool], network: Network) -> None:
        """Run the network on all slots; a slot that is not running keeps its clean prediction.

        Args:
            rows: (S,) table row of each slot's pass.
            running: (S,) slots that are one pass further afterwards.
            network: what gives the raw output.
        """
        self._rows = rows
        gathered = from_numpy(self._coefficients.take(rows, axis=1)).to(self._state.device)
        size, slots = self._state.shape[:2]
        t, in_scale = gathered[:2]
        first, *others = gathered[2:].view(size + 1, size + 1, slots, 1, 1, 1)
        z = self._state[0]
        u = network(z, in_scale.view(-1, 1, 1, 1), t)
        mixed = first * z
        for weights, source in zip(others, (*self._state[1:], u), strict=True):
            mixed.addcmul_(weights, source)
        self._next = mixed[1:]
        self.z0_pred = mixed[0] if all(running) else torch.where(self._select(running), mixed[0], self.z0_pred)

    def finite(self) -> list[bool]:
        """(S,) slots whose clean prediction is finite."""
        if math.isfinite(float(self.z0_pred.sum())):  # a sum is not finite where any element is not
            return [True] * len(self.z0_pred)
        return self.z0_pred.isfinite().flatten(1).all(1).cpu().numpy().tolist()

    def commit(self, slots: Sequence[int], draw: Callable[[int], Float[Tensor, "c h w"]]) -> None:
        """Take the solver's step in some slots: once between two passes, for all that take it.

        Args:
            slots: those whose last pass is committed.
            draw: fresh noise of a slot's own, for the samplers that add some at every step.
        """
        if not slots:
            return
        taken = set(slots)
        others = [slot for slot in range(self._state.shape[1]) if slot not in taken]
        if others:  # these few are copied instead of the many that move on
            which = torch.tensor(others, device=self._state.device)
            self._next.index_copy_(1, which, self._state.index_select(1, which))
        self._state = self._next
        if self._noise_levels is not None:
            for slot in slots:
                self._add_noise(slot, float(self._noise_levels[self._rows[slot]]), draw)

    def start(self, slot: int, z: Float[Tensor, "c h w"]) -> None:
        """Set the latent of one slot."""
        self._state[0, slot] = z

    def put(self, slots: Int[Tensor, " some"], z: Float[Tensor, "some c h w"]) -> None:
        """Set the latents of some slots."""
        self._state[0].index_copy_(0, slots, z)

    def present(self, done: Sequence[int]) -> Float[Tensor, "slot c h w"]:
        """Copy of the latents, with the clean prediction in the slots that are done."""
        latents = self._state[0].clone()
        for slot in done:
            latents[slot] = self.z0_pred[slot]
        return latents

    def replace(self, slot_latents: Mapping[int, Float[Tensor, "c h w"]], done: Sequence[int]) -> None:
        """Set some slots' latents, or their clean predictions where they are done."""
        self.z0_pred = self.z0_pred.clone()
        for slot, latent in slot_latents.items():
            (self.z0_pred if slot in done else self._state[0])[slot] = latent

    def copies(self, slot: int) -> LatentCopies:
        """Copies of a slot's state, of the state its last pass leads to, and of its clean prediction."""
        return self._state[:, slot].clone(), self._next[:, slot].clone(), self.z0_pred[slot].clone()

    def put_back(self, slot: int, copies: LatentCopies) -> None:
        """Undo everything that happened to a slot since ``copies`` were taken; a base step must be what comes next."""
        self._state, self._next, self.z0_pred = self._state.clone(), self._next.clone(), self.z0_pred.clone()
        self._state[:, slot], self._next[:, slot], self.z0_pred[slot] = copies

    def clear(self, slot: int) -> None:
        """Forget all of a slot but its clean prediction."""
        self._state[:, slot] = 0

    def _add_noise(self, slot: int, level: float, draw: Callable[[int], Float[Tensor, "c h w"]]) -> None:
        if level > 0:
            self._state[0, slot] += level * draw(slot)

    def _select(self, which: Sequence[bool]) -> Bool[Tensor, "slot 1 1 1"]:
        return torch.tensor(which, device=self._state.device).view(-1, 1, 1, 1)


def _by_source(table: SolverTable) -> NDArray[np.float32]:
    """(2 + (K + 1)^2, R) t and in_scale; then, for each of (state, u), its weights in (z0_pred, next state)."""
    t, in_scale, c, d, _ = table.rows[: len(HEAD)]
    size = table.state_size
    weights = np.zeros((size + 1, size + 1, table.rows.shape[1]), np.float32)
    weights[0, 0], weights[size, 0] = c, d
    weights[:, 1:] = table.transitions.transpose(2, 1, 0)
    return np.concatenate([t[None], in_scale[None], weights.reshape(-1, weights.shape[-1])])
