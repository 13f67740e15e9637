"""The tensors of all slots: latents, solver histories and clean predictions, moved by one update per tick."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from addiffusion.sampling.slot import SlotState
from addiffusion.sampling.solver_tables.schedules import Schedules
from addiffusion.torch_typed import from_numpy

Network = Callable[
    [Float[Tensor, "some c h w"], Float[Tensor, "some 1 1 1"], Float[Tensor, " some"]], Float[Tensor, "some c h w"]
]
"""Raw output of latents, factors that scale them for the network, and timesteps."""
LatentCopies: TypeAlias = tuple[
    Float[Tensor, "entry c h w"], Float[Tensor, "entry c h w"], Float[Tensor, "c h w"], Float[Tensor, "c h w"] | None
]
"""A slot's state, the state its last pass leads to, its clean prediction, and the raw output where a leap needs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSnapshot:
    """State of a slot and its episode at a decision (``Engine.snapshot``)."""

    state: SlotState
    latents: LatentCopies
    solver_noise: UInt8[Tensor, " byte"]
    """State of the episode's own stream of solver noise."""
    middle_features: Float[Tensor, " width"]
    """Of the pass that led to the decision."""
    mask: Float[Tensor, "h w"] | None
    """Of the last refine before it."""
    attention_entropy: float


class Latents:
    """State of S slots in float32: entry 0 is the latent z, the others are what a multistep solver remembers.

    The update of a tick is one gather of coefficients and one multiply-add for each entry over all slots that take
    part. Being elementwise it can't depend on where a slot lies in the batch, which a batched matrix product does not
    promise.
    """

    def __init__(self, schedules: Schedules, slots: int, shape: tuple[int, int, int], device: torch.device) -> None:
        """Latents of zeros.

        Args:
            schedules: coefficients of every pass.
            slots: S.
            shape: (c, h, w) of one latent.
            device: where they lie.
        """
        self._schedules = schedules
        self._all = tuple(range(slots))
        self._rows = [0] * slots
        self._state = torch.zeros(schedules.state_size, slots, *shape, device=device)
        self._next = torch.zeros_like(self._state)
        self.z0_pred: Float[Tensor, "slot c h w"] = torch.zeros(slots, *shape, device=device)
        """One-step clean prediction of each slot. Later ticks never change this tensor: they make a new one."""
        self._outputs = torch.zeros(slots if schedules.leaps else 0, *shape, device=device)
        """Raw output of each slot's last pass, which a leap steps by."""

    def step(self, slots: Sequence[int], rows: Sequence[int], network: Network) -> list[bool]:
        """Run the network on some slots; all others keep their clean prediction.

        Args:
            slots: those that take part, each once.
            rows: table row of each one's pass.
            network: what gives the raw output.

        Returns:
            For each slot whether its clean prediction is finite.
        """
        gathered = from_numpy(self._schedules.coefficients.take(rows, axis=1)).to(self._state.device)
        size, everyone = self._with_room(), tuple(slots) == self._all
        which = None if everyone else self._index(slots)
        state = self._state if which is None else self._state.index_select(1, which)
        t, in_scale = gathered[:2]
        u = network(state[0], in_scale.view(-1, 1, 1, 1), t)
        mixed = _mixed(gathered[2:].view(size + 1, size + 1, len(slots), 1, 1, 1), (*state, u))
        for slot, row in zip(slots, rows, strict=True):
            self._rows[slot] = row
        if which is None:
            self.z0_pred, self._next = mixed[0], mixed[1:]
        else:
            self.z0_pred = self.z0_pred.index_copy(0, which, mixed[0])
            self._next.index_copy_(1, which, mixed[1:])
        if self._schedules.leaps:
            self._keep(slots, u)
        return _finite(mixed[0])

    def leap(self, slot_rows: Mapping[int, int]) -> None:
        """Let the step that some slots take next be another row's: from the same pass to a later schedule point."""
        if not slot_rows:
            return
        rows, which = list(slot_rows.values()), self._index(list(slot_rows))
        gathered = from_numpy(self._schedules.coefficients.take(rows, axis=1)).to(self._state.device)
        size = len(self._state)
        weights = gathered[2:].view(size + 1, size + 1, len(rows), 1, 1, 1)[:, 1:]
        sources = (*self._state.index_select(1, which), self._outputs.index_select(0, which))
        self._next.index_copy_(1, which, _mixed(weights, sources))
        for slot, row in slot_rows.items():
            self._rows[slot] = row

    def commit(self, slots: Sequence[int], draw: Callable[[int], Float[Tensor, "c h w"]]) -> None:
        """Take the solver's step in some slots: once between two passes, for all that take it.

        Args:
            slots: those whose last pass is committed.
            draw: fresh noise of a slot's own, for the samplers that add some at every step.
        """
        if not slots:
            return
        if tuple(slots) == self._all:
            self._state, self._next = self._next, self._state  # in fewer operations; what is next now, no step takes
        else:
            which = self._index(slots)
            self._state.index_copy_(1, which, self._next.index_select(1, which))
        for slot in slots:
            self._add_noise(slot, self._schedules.noise_levels[self._rows[slot]], draw)

    def start(self, slot: int, z: Float[Tensor, "c h w"]) -> None:
        """Set the latent of one slot, with nothing remembered."""
        self._state[:, slot] = 0
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
        """Copies of all that is a slot's."""
        output = self._outputs[slot].clone() if len(self._outputs) else None
        return self._state[:, slot].clone(), self._next[:, slot].clone(), self.z0_pred[slot].clone(), output

    def put_back(self, slot: int, copies: LatentCopies, *, row: int) -> None:
        """Undo everything that happened to a slot since ``copies`` were taken.

        Args:
            slot: it waits for a decision, as it did then.
            copies: of it.
            row: table row of its last pass then.
        """
        self._state, self._next, self.z0_pred = self._state.clone(), self._next.clone(), self.z0_pred.clone()
        state, following, self.z0_pred[slot], output = copies
        self._state[: len(state), slot], self._next[: len(state), slot] = state, following
        if output is not None:
            self._outputs[slot] = output
        self._rows[slot] = row

    def clear(self, slot: int) -> None:
        """Forget all of a slot but its clean prediction."""
        self._state[:, slot] = 0

    def _keep(self, slots: Sequence[int], u: Float[Tensor, "some c h w"]) -> None:
        if not len(self._outputs):  # the first schedule with leaps has come later
            self._outputs = torch.zeros_like(self._state[0])
        self._outputs.index_copy_(0, self._index(slots), u)

    def _with_room(self) -> int:
        """K: entries of the state, which are as many as the schedules have come to need."""
        missing = self._schedules.state_size - len(self._state)
        if missing:
            more = torch.zeros(missing, *self._state.shape[1:], device=self._state.device)
            self._state, self._next = torch.cat([self._state, more]), torch.cat([self._next, more])
        return len(self._state)

    def _add_noise(self, slot: int, level: float, draw: Callable[[int], Float[Tensor, "c h w"]]) -> None:
        if level > 0:
            self._state[0, slot] += level * draw(slot)

    def _index(self, slots: Sequence[int]) -> Int[Tensor, " some"]:
        return torch.tensor(slots, device=self._state.device)


def _mixed(weights: Float[Tensor, "source entry some 1 1 1"], sources: Sequence[Tensor]) -> Tensor:
    """(entry, some, c, h, w) weighted sums of (some, c, h, w) sources."""
    first, *others = weights
    mixed = first * sources[0]
    for weight, source in zip(others, sources[1:], strict=True):
        mixed.addcmul_(weight, source)
    return mixed


def _finite(z: Float[Tensor, "some c h w"]) -> list[bool]:
    if math.isfinite(float(z.sum())):  # a sum is not finite where any element is not
        return [True] * len(z)
    return z.isfinite().flatten(1).all(1).cpu().numpy().tolist()
