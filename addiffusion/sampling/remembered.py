"""Decisions that slots can be brought back to: to try two things after each other, or to take an earlier attempt up."""

from __future__ import annotations

import torch

from addiffusion.sampling.asked import Asked
from addiffusion.sampling.latents import SlotSnapshot
from addiffusion.sampling.slot import Phase


class Remembered(Asked):
    """Snapshots of an engine's slots, beside what can be asked about them."""

    def snapshot(self, slot: int) -> SlotSnapshot:
        """State of an episode that waits for a decision.

        Raises:
            SlotError: the slot is not DECIDING.
        """
        self._slots.require(slot, Phase.DECIDING)
        episode = self._episode(slot)
        return SlotSnapshot(
            state=self._slots.state(slot),
            latents=self._latents.copies(slot),
            solver_noise=episode.solver_noise.get_state(),
            middle_features=self.middle_features([slot])[0].clone(),
            mask=episode.mask,
            attention_entropy=episode.attention_entropy,
        )

    def put_back(self, slot: int, snapshot: SlotSnapshot) -> None:
        """Bring a slot back to the decision of a snapshot, once what was tried there is DONE.

        Attention is not part of it: no refine may be what comes next.

        Raises:
            SlotError: the slot is not DONE.
        """
        self._slots.require(slot, Phase.DONE)
        self._slots.put_back(slot, snapshot.state)
        self._restore(slot, snapshot)
        self._episode(slot).solver_noise.set_state(snapshot.solver_noise)

    def bring_back(self, slot: int, snapshot: SlotSnapshot) -> None:
        """Let an episode that waits for a decision go on from an earlier one, with what it spent and drew since.

        Raises:
            SlotError: the slot is not DECIDING.
        """
        self._slots.require(slot, Phase.DECIDING)
        self._slots.bring_back(slot, snapshot.state)
        self._restore(slot, snapshot)
        self._last.bring_back(slot, snapshot.middle_features)

    @torch.inference_mode()
    def _restore(self, slot: int, snapshot: SlotSnapshot) -> None:
        self._latents.put_back(slot, snapshot.latents, row=snapshot.state.row)
        episode = self._episode(slot)
        episode.mask, episode.attention_entropy = snapshot.mask, snapshot.attention_entropy
