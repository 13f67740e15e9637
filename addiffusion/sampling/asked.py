"""What can be asked about the slots of an engine and their episodes."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from addiffusion.backbones.base import Backbone
from addiffusion.sampling.latents import Latents
from addiffusion.sampling.refining import SlotEpisode
from addiffusion.sampling.seen import Seen
from addiffusion.sampling.slot import Phase, SlotInfo
from addiffusion.sampling.slots import Slots


class Asked(Seen):
    """Phases and counts of an engine's slots, beside what can be seen of them."""

    def __init__(
        self,
        backbone: Backbone,
        slots: Slots,
        latents: Latents,
        *,
        rows: int,
        images_per_pass: int,
        buckets: bool,
    ) -> None:
        """Slots without episodes.

        Args:
            backbone: the model.
            slots: their phases and counts.
            latents: their tensors.
            rows: of a network pass (R).
            images_per_pass: guided as the engine is by itself.
            buckets: as of ``Seen``.
        """
        super().__init__(backbone, latents, images_per_pass=images_per_pass, buckets=buckets)
        self._slots, self._rows = slots, rows
        self._episodes: list[SlotEpisode | None] = [None] * len(slots)

    def phase(self, slot: int) -> Phase:
        """Phase of a slot."""
        self._slots.require(slot, *Phase)
        return self._slots.phase(slot)

    def free(self) -> list[int]:
        """Slots that can be admitted to."""
        return self._slots.having(Phase.EMPTY)

    def deciding(self) -> list[int]:
        """Slots that wait for an action."""
        return self._slots.having(Phase.DECIDING)

    def done(self) -> list[int]:
        """Slots whose z0_pred is the result of their episode."""
        return self._slots.having(Phase.DONE)

    def failed(self) -> dict[int, str]:
        """Slots whose episode has no result, each with the reason in one sentence."""
        return {slot: self._failure(slot) for slot in self._slots.having(Phase.FAILED)}

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def running(self) -> bool:
        """Whether a tick would do anything."""
        return self._slots.running_rows > 0

    @property
    def rows_wanted(self) -> int:
        """Rows of the next tick that images take."""
        return min(self._slots.running_rows, self._rows)

    @property
    def fill(self) -> float:
        """Share of the rows that the next tick could take; above 1, slots are left over."""
        return self._slots.running_rows / self._rows

    @property
    def busy(self) -> bool:
        """Whether any slot runs or waits for an action."""
        return self.running or bool(self.deciding())

    def info(self, slot: int) -> SlotInfo:
        """Step, NFE and attention entropy of a slot's episode.

        Raises:
            SlotError: the slot is empty.
        """
        episode, at, cost = self._episode(slot), self._slots[slot], self._slots.cost(slot)
        return SlotInfo(
            step=at.step,
            timestep=at.schedule.timesteps[at.step],
            nfe=at.nfe,
            network_evals=at.network_evals,
            cost=cost,
            guidance_scale=episode.guidance_scale,
            num_steps=at.schedule.sampler.num_steps,
            solver_memory=at.schedule.memory,
            cost_left_frac=1 - cost / at.max_cost,
            redraws=at.redraws,
            attention_entropy=episode.attention_entropy,
        )

    def came_back(self, slot: int) -> bool:
        """Whether a slot waits for its decision with the latent of an earlier attempt."""
        return self._slots[slot].came_back

    def nfe(self, slot: int) -> int:
        """Passes of a slot's episode so far."""
        return self._slots[slot].nfe

    def refine_mask(self, slot: int) -> Float[Tensor, "h w"] | None:
        """Mask (h, w) of the slot's last refine, in latent pixels; None before the first."""
        return self._episode(slot).mask

    def allowed(self, slot: int) -> tuple[bool, ...]:
        """For each ``Action`` whether a slot that waits for one can take it, and pay for it and an end after it.

        Raises:
            SlotError: the slot is not DECIDING.
        """
        self._slots.require(slot, Phase.DECIDING)
        return self._slots.allowed(slot)

    def _episode(self, slot: int) -> SlotEpisode:
        episode = self._episodes[slot] if 0 <= slot < len(self._episodes) else None
        if episode is None:
            self._slots.require(slot, *(phase for phase in Phase if phase is not Phase.EMPTY))
        assert episode is not None
        return episode

    def _failure(self, slot: int) -> str:
        info = self.info(slot)
        place = f"step {info.step} (t = {info.timestep:g}), after {info.nfe} passes"
        return f"The network returned values that are not finite at {place}."
