"""The tensors of all slots: latents, solver histories and clean predictions, moved by one update per tick."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from addiffusion.sampling.table import HEAD, SolverTable

Network = Callable[
    [Float[Tensor, "slot c h w"], Float[Tensor, "slot 1 1 1"], Float[Tensor, " slot"]], Float[Tensor, "slot c h w"]
]
"""Raw output of latents, factors that scale them for the network, and timesteps."""


class Latents:
    """State of S slots in float32: entry 0 is the latent z, the others are what a multistep solver remembers.

    The update of a tick is one gather of coefficients and a chain of multiply-adds over all slots at once. It leaves
    out the entries that no row of the table uses, so a one-step solver costs what its formula costs. Being elementwise
    it can't depend on where a slot lies in the batch, which a batched matrix product does not promise.
    """

    def __init__(self, table: SolverTable, slots: int, shape: tuple[int, int, int], device: torch.device) -> None:
        self._table = table
        self._draws_noise = table.draws_noise
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
            network: what gives the raw output.
        """
        gathered = self._table.rows.take(rows, axis=1)
        if self._draws_noise:
            self._noise = gathered[HEAD.index("noise")]
        columns = torch.from_numpy(gathered).to(self._state.device).view(len(gathered), -1, 1, 1, 1)
        t, in_scale, c, d, _ = columns[: len(HEAD)].unbind()
        z = self.z
        u = network(z, in_scale, t.flatten())
        z0_pred = (c * z).addcmul_(d, u)
        weights = columns[len(HEAD) :].unflatten(0, (len(self._state), -1))
        sources = [*self._state.unbind(), u]
        mixed = [self._mixed(entry, weights[entry], sources) for entry in range(len(self._state))]
        self._next = torch.stack(mixed) if len(mixed) > 1 else mixed[0][None]
        self.z0_pred = z0_pred if running.all() else torch.where(self._select(running), z0_pred, self.z0_pred)

    def _mixed(self, entry: int, weights: Tensor, sources: list[Tensor]) -> Float[Tensor, "slot c h w"]:
        used = self._used[entry]
        if not used:
            return torch.zeros_like(self.z)
        first, *others = used
        mixed = weights[first] * sources[first]
        for source in others:
            mixed.addcmul_(weights[source], sources[source])
        return mixed

    def finite(self) -> NDArray[np.bool_]:
        """(S,) slots whose clean prediction is finite."""
        # A maximum is not finite where any element is not; one number per slot comes back from the device.
        return np.isfinite(self.z0_pred.abs().amax((1, 2, 3)).cpu().numpy())

    def commit(self, which: NDArray[np.bool_], draw: Callable[[int], Float[Tensor, "c h w"]]) -> None:
        """Take the solver's step in the chosen slots.

        Args:
            which: (S,) slots whose last pass is committed.
            draw: fresh noise of a slot's own, for the samplers that add some at every step.
        """
        if not which.any():
            return
        self._state = self._next if which.all() else torch.where(self._select(which), self._next, self._state)
        if self._draws_noise:
            for slot in np.flatnonzero(which & (self._noise > 0)).tolist():
                self._state[0, slot] += float(self._noise[slot]) * draw(slot)

    def put(self, slots: int | NDArray[np.int64], z: Float[Tensor, "*some c h w"]) -> None:
        """Set the latent of one slot, or those of some."""
        self._state[0, torch.as_tensor(slots)] = z

    def clear(self, slot: int) -> None:
        """Forget all of a slot but its clean prediction."""
        self._state[:, slot] = 0

    def _select(self, which: NDArray[np.bool_]) -> Bool[Tensor, "slot 1 1 1"]:
        return torch.from_numpy(which).to(self._state.device).view(-1, 1, 1, 1)
