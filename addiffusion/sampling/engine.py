"""Continuous batching: S slots, each at its own place in its own episode, one network call per tick for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from addiffusion.actions import Action
from addiffusion.backbones.base import Backbone, PromptEmbedding
from addiffusion.config import RefineSection, SamplerSection
from addiffusion.errors import SlotError
from addiffusion.sampling import masks
from addiffusion.sampling.slots import Moves, Phase, SlotInfo, Slots
from addiffusion.sampling.table import build_table
from addiffusion.seeds import generator


@dataclass(slots=True, kw_only=True)
class _Tenant:
    """What an episode owns beside its latent."""

    seed: int
    keep: Tensor
    noise: torch.Generator
    mask: Tensor | None = None
    attention_entropy: float = 0.0


class Engine:
    """Denoises S images at once under per-image control.

    Each tick runs all S rows (2 S with guidance) through the network, busy or not: the batch shape never changes, so
    on a CPU an episode is bitwise the same in any slot, beside any neighbours, admitted in any order. A slot that
    waits for its decision repeats its pass at no NFE. Latents are float32 whatever the network's precision.

    The result is always a clean prediction. Where a scheduler has set_alpha_to_one off, as SD 1.5's, the diffusers
    pipeline returns the latent after one more solver step instead, which still holds the noise of timestep 0.
    """

    @torch.inference_mode()
    def __init__(
        self,
        backbone: Backbone,
        sampler: SamplerSection,
        refine: RefineSection,
        *,
        slots: int,
        guidance_scale: float,
    ) -> None:
        self._backbone = backbone
        self._refine = refine
        self._guidance_scale = guidance_scale
        self._guided = guidance_scale > 1
        self._table = build_table(
            backbone.scheduler, sampler.num_steps, finish_steps=sampler.finish_steps, r_noise=refine.r_noise
        )
        self._slots = Slots(slots, self._table, warmup_steps=sampler.warmup_steps, refine_passes=refine.k)
        self._tenants: list[_Tenant | None] = [None] * slots
        self._z = torch.zeros(slots, *backbone.latent_shape, device=backbone.device)
        self._z_next = self._z
        self._z0_pred = self._z.clone()
        uncond = backbone.uncond().hidden.to(backbone.device)
        self._hidden = uncond.repeat(2 * slots if self._guided else slots, 1, 1)
        self._uncond = uncond

    # ---------------------------------------------------------------- what the slots are doing

    def phase(self, slot: int) -> Phase:
        """What a slot is doing."""
        self._slots.require(slot, *Phase)
        return Phase(int(self._slots.phase[slot]))

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

    @property
    def busy(self) -> bool:
        """Whether any slot runs or waits for an action."""
        return bool(self._slots.running.any()) or bool(self.deciding())

    @property
    def z0_pred(self) -> Float[Tensor, "slot c h w"]:
        """One-step clean prediction of each slot; of a DONE slot, the result.

        Later ticks never change this tensor: they make a new one.
        """
        return self._z0_pred

    def info(self, slot: int) -> SlotInfo:
        """Where a slot's episode stands.

        Raises:
            SlotError: the slot is empty.
        """
        tenant = self._tenant(slot)
        step, nfe = int(self._slots.step[slot]), int(self._slots.nfe[slot])
        return SlotInfo(
            step=step,
            timestep=float(self._table.timesteps[step]),
            nfe=nfe,
            network_evals=2 * nfe if self._guided else nfe,
            attention_entropy=tenant.attention_entropy,
        )

    def refine_mask(self, slot: int) -> Float[Tensor, "h w"] | None:
        """Mask of the slot's last refine, None before the first."""
        return self._tenant(slot).mask

    # ---------------------------------------------------------------- what can be done with them

    @torch.inference_mode()
    def admit(self, slot: int, *, embedding: PromptEmbedding, seed: int) -> None:
        """Start an episode in an empty slot; all of its randomness comes from ``seed``.

        Raises:
            SlotError: the slot is not empty.
        """
        self._slots.admit(slot)
        noise = torch.randn(self._backbone.latent_shape, generator=generator(seed, "latent"))
        self._z[slot] = (noise * self._table.init_noise_sigma).to(self._z.device)
        self._hidden[self._row(slot)] = embedding.hidden.to(self._hidden.device)
        self._tenants[slot] = _Tenant(seed=seed, keep=embedding.keep, noise=generator(seed, "refine"))

    @torch.inference_mode()
    def tick(self) -> None:
        """One network call over all slots; each running slot is one NFE further.

        Raises:
            SlotError: no slot has anything to run.
        """
        running = self._slots.running
        if not running.any():
            raise SlotError("A tick would do nothing: admit an episode, or act on the slots that wait for a decision.")
        coefficients = torch.from_numpy(self._table.rows[:, self._slots.rows]).to(self._z.device)
        u = self._predict(coefficients[0])
        c, d, a, b = coefficients[1:].view(4, -1, 1, 1, 1)
        z0_pred = torch.addcmul(c * self._z, d, u)
        self._z_next = torch.addcmul(a * self._z, b, u)
        self._z0_pred = torch.where(self._select(running), z0_pred, self._z0_pred)
        finite = self._z0_pred.isfinite().flatten(1).all(1).cpu().numpy()
        self._move(self._slots.after_pass(finite))

    @torch.inference_mode()
    def act(self, slot_actions: Mapping[int, Action]) -> None:
        """Take decisions in slots that wait for one.

        Raises:
            SlotError: one of the slots is not DECIDING; then no action is taken.
        """
        moves = self._slots.act(slot_actions)
        for slot in moves.refine:
            self._start_refine(int(slot))
        self._move(moves)

    def release(self, slot: int) -> None:
        """Empty a slot whose episode is done or has failed, or is given up where it waits for a decision.

        Raises:
            SlotError: its episode is in the middle of its passes, or there is none.
        """
        self._slots.release(slot)
        self._tenants[slot] = None
        with torch.inference_mode():
            self._z[slot] = 0
            self._hidden[self._row(slot)] = self._uncond

    def decode(self) -> NDArray[np.uint8]:
        """Images (S, H, W, 3) of every slot's z0_pred, always all of them: a fixed batch shape, as in a tick."""
        with torch.inference_mode():
            return self._backbone.decode(self._z0_pred.nan_to_num())

    # ---------------------------------------------------------------- latents

    def _predict(self, t: Float[Tensor, " slot"]) -> Float[Tensor, "slot c h w"]:
        """Raw network output of every slot, guided where asked (arXiv:2207.12598 Eq. 6, in diffusers' scaling)."""
        if not self._guided:
            return self._backbone.denoise(self._z, t, self._hidden)
        output = self._backbone.denoise(torch.cat([self._z, self._z]), torch.cat([t, t]), self._hidden)
        uncond, cond = output.chunk(2)
        return uncond + self._guidance_scale * (cond - uncond)

    def _move(self, moves: Moves) -> None:
        if moves.commit.any():
            self._z = torch.where(self._select(moves.commit), self._z_next, self._z)
        for slot in map(int, moves.refine):
            self._z[slot] = self._refine_input(slot)
        for slot in map(int, moves.renoise):
            self._z[slot] = self._noised(slot, self._table.point_noise)

    def _refine_input(self, slot: int) -> Float[Tensor, "c h w"]:
        mask = self._tenant(slot).mask
        assert mask is not None
        mask = mask.to(self._z.device)
        return mask * self._noised(slot, self._table.refine_noise) + (1 - mask) * self._z0_pred[slot]

    def _noised(self, slot: int, levels: NDArray[np.float32]) -> Float[Tensor, "c h w"]:
        """z0_pred of a slot at the noise level of its step, with fresh noise of the episode's own."""
        alpha, sigma = map(float, levels[:, self._slots.step[slot]])
        noise = torch.randn(self._backbone.latent_shape, generator=self._tenant(slot).noise)
        return alpha * self._z0_pred[slot] + sigma * noise.to(self._z.device)

    # ---------------------------------------------------------------- slots

    def _start_refine(self, slot: int) -> None:
        tenant, options = self._tenant(slot), self._refine
        _, height, width = self._backbone.latent_shape
        blur, tau = options.sigma_blur, options.tau
        if options.mask == "attention":
            attention = masks.word_map(self._backbone.attention_maps(self._row(slot)), tenant.keep)
            tenant.attention_entropy = masks.map_entropy(attention)
            tenant.mask = masks.attention_mask(attention, tau=tau, sigma_blur=blur).cpu()
        elif options.mask == "grid":
            tenant.mask = masks.grid_mask(height, width, sigma_blur=blur)
        else:
            draws = generator(tenant.seed, "mask", int(self._slots.step[slot]))
            tenant.mask = masks.random_mask(height, width, tau=tau, sigma_blur=blur, generator=draws)

    def _row(self, slot: int) -> int:
        """Row of a slot's prompt in the network batch: the conditional half comes second."""
        return slot + len(self._slots) if self._guided else slot

    def _select(self, which: NDArray[np.bool_]) -> Bool[Tensor, "slot 1 1 1"]:
        return torch.from_numpy(which).to(self._z.device).view(-1, 1, 1, 1)

    def _tenant(self, slot: int) -> _Tenant:
        self._slots.require(slot, *(phase for phase in Phase if phase is not Phase.EMPTY))
        tenant = self._tenants[slot]
        assert tenant is not None
        return tenant

    def _failure(self, slot: int) -> str:
        info = self.info(slot)
        return (
            f"The network returned values that are not finite at step {info.step} (t = {info.timestep:g}), "
            f"after {info.nfe} passes."
        )
