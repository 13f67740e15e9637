"""The tensors of all slots: latents, solver histories and clean predictions, moved by one update per tick."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from addiffusion.sampling.table import HEAD, SolverTable

Network = Callable[[Float[Tensor, "slot c h w"], Float[Tensor, " slot"]], Float[Tensor, "slot c h w"]]


class Latents:
    """State of S slots in float32: entry 0 is the latent z, the others are what a multistep solver remembers.

    The update of a tick is one gather of coefficients and a chain of multiply-adds over all slots at once. It leaves
    out the entries that no row of the table uses, so a one-step solver costs what its formula costs. Being elementwise
    it can't depend on where a slot lies in the batch, which a batched matrix product does not promise.
    """

    def __init__(self, table: SolverTable, slots: int, shape: tuple[int, int, int], device: torch.device) -> None:
        self._table = table
        used = np.any(table.transitions, axis=0)
        self._used = [np.flatnonzero(used[entry]).tolist() for entry in range(table.state_size)]
        self._state = torch.zeros(table.state_size, slots, *shape, device=device)
        self._next = self._state
        self._noise = np.zeros(slots, np.float32)
        self.z0_pred: Float[Tensor, "slot c h w"] = torch.zeros(slots, *shape, device=device)
        """One-step clean prediction of each slot. Later ticks never change this tensor: they make a new one."""

    @property
    def z(self) -> Float[Tensor, "slot c h w"]:
        """Noisy latent of each slot."""
        return self._state[0]

    def step(self, rows: NDArray[np.int64], running: NDArray[np.bool_], network: Network) -> None:
        """Run the network on all slots; a slot that is not running keeps its clean prediction.

        Args:
            rows: (S,) table row of each slot's pass.
            running: (S,) slots that are one pass further afterwards.
            network: raw output from latents as the network takes them and their timesteps.
        """
        gathered = torch.from_numpy(self._table.rows[:, rows]).to(self._state.device)
        t, in_scale, c, d, _ = gathered[: len(HEAD)]
        self._noise = self._table.rows[HEAD.index("noise"), rows]
        transition = gathered[len(HEAD) :].view(len(self._state), -1, len(rows), 1, 1, 1)
        u = network(_column(in_scale) * self.z, t)
        z0_pred = torch.addcmul(_column(c) * self.z, _column(d), u)
        sources = [*self._state, u]
        self._next = torch.stack([self._mixed(k, transition[k], sources) for k in range(len(self._state))])
        self.z0_pred = torch.where(self._select(running), z0_pred, self.z0_pred)

    def _mixed(self, entry: int, weights: Tensor, sources: list[Tensor]) -> Float[Tensor, "slot c h w"]:
        used = self._used[entry]
        if not used:
            return torch.zeros_like(self.z)
        first, *others = used
        mixed = weights[first] * sources[first]
        for source in others:
            mixed = torch.addcmul(mixed, weights[source], sources[source])
        return mixed

    def finite(self) -> NDArray[np.bool_]:
        """(S,) slots whose clean prediction is finite."""
        return self.z0_pred.isfinite().flatten(1).all(1).cpu().numpy()

    def commit(self, which: NDArray[np.bool_], draw: Callable[[int], Float[Tensor, "c h w"]]) -> None:
        """Take the solver's step in the chosen slots.

        Args:
            which: (S,) slots whose last pass is committed.
            draw: fresh noise of a slot's own, for the samplers that add some at every step.
        """
        if which.any():
            self._state = torch.where(self._select(which), self._next, self._state)
        for slot in map(int, np.flatnonzero(which & (self._noise > 0))):
            self._state[0, slot] += float(self._noise[slot]) * draw(slot)

    def put(self, slot: int, z: Float[Tensor, "c h w"]) -> None:
        """Set a slot's latent."""
        self._state[0, slot] = z

    def kept(self, slot: int) -> tuple[Tensor, Tensor, Tensor]:
        """Copies of a slot's state, of the state its last pass leads to, and of its clean prediction."""
        return self._state[:, slot].clone(), self._next[:, slot].clone(), self.z0_pred[slot].clone()

    def put_back(self, slot: int, kept: tuple[Tensor, Tensor, Tensor]) -> None:
        """Undo everything that happened to a slot since ``kept`` was taken; a base step must be what comes next."""
        self._state, self._next, self.z0_pred = self._state.clone(), self._next.clone(), self.z0_pred.clone()
        self._state[:, slot], self._next[:, slot], self.z0_pred[slot] = kept

    def clear(self, slot: int) -> None:
        """Forget all of a slot but its clean prediction."""
        self._state[:, slot] = 0

    def _select(self, which: NDArray[np.bool_]) -> Bool[Tensor, "slot 1 1 1"]:
        return torch.from_numpy(which).to(self._state.device).view(-1, 1, 1, 1)


def _column(values: Float[Tensor, " slot"]) -> Float[Tensor, "slot 1 1 1"]:
    return values.view(-1, 1, 1, 1)
