"""Continuous batching: S slots, each at its own place in its own episode, one network call per tick for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from addiffusion.actions import Action
from addiffusion.backbones.base import Backbone, PassRecord, PromptEmbedding
from addiffusion.config import RefineSection, SamplerSection
from addiffusion.errors import SlotError
from addiffusion.sampling.condition import Condition
from addiffusion.sampling.latents import Latents, SlotSnapshot
from addiffusion.sampling.refining import AtStep, Refining, SlotEpisode
from addiffusion.sampling.slots import Moves, Phase, SlotInfo, Slots
from addiffusion.sampling.solver_tables.build import table_for
from addiffusion.sampling.solver_tables.table import SolverTable
from addiffusion.seeds import generator


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
        table: SolverTable | None = None,
    ) -> None:
        """An engine of empty slots.

        Args:
            backbone: the model.
            sampler: solver and schedule.
            refine: what a refine does.
            slots: images at once (S).
            guidance_scale: of episodes that bring none; 1 or less computes no guidance for any of them.
            table: ``table_for`` of the first three, where it is at hand; None builds it (a tenth of a second or more).

        Raises:
            ConfigError: the model can't be sampled so.
        """
        self._backbone = backbone
        self._table = table or table_for(backbone, sampler, refine)
        self._refining = Refining(backbone, refine, self._table)
        self._slots = Slots(slots, self._table, warmup_steps=sampler.warmup_steps, refine_passes=refine.k)
        self._episodes: list[SlotEpisode | None] = [None] * slots
        self._latents = Latents(self._table, slots, backbone.latent_shape, backbone.device)
        self._condition = Condition(backbone, slots, guidance_scale=guidance_scale)
        self._timesteps: list[float] = self._table.timesteps.tolist()
        self._pass: PassRecord | None = None
        self._moves = Moves()
        """What the next tick begins with. A slot with a move to make runs in that tick, so nothing sees it before."""

    # ---------------------------------------------------------------- what the slots are doing

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
        return any(self._slots.running)

    @property
    def busy(self) -> bool:
        """Whether any slot runs or waits for an action."""
        return self.running or bool(self.deciding())

    @property
    def z0_pred(self) -> Float[Tensor, "slot c h w"]:
        """One-step clean prediction of each slot; of a DONE slot, the result.

        Later ticks never change this tensor: they make a new one.
        """
        return self._latents.z0_pred

    def info(self, slot: int) -> SlotInfo:
        """Step, NFE and attention entropy of a slot's episode.

        Raises:
            SlotError: the slot is empty.
        """
        episode = self._episode(slot)
        step, nfe = self._slots.step(slot), self._slots.nfe(slot)
        return SlotInfo(
            step=step,
            timestep=self._timesteps[step],
            nfe=nfe,
            network_evals=self._condition.rows_per_slot * nfe,
            attention_entropy=episode.attention_entropy,
        )

    def refine_mask(self, slot: int) -> Float[Tensor, "h w"] | None:
        """Mask (h, w) of the slot's last refine, in latent pixels; None before the first."""
        return self._episode(slot).mask

    # ---------------------------------------------------------------- what can be done with them

    @torch.inference_mode()
    def admit(
        self,
        slot: int,
        *,
        embedding: PromptEmbedding,
        seed: int,
        negative: PromptEmbedding | None = None,
        guidance_scale: float | None = None,
        noise: Float[Tensor, "c h w"] | None = None,
    ) -> None:
        """Start an episode in an empty slot; all of its randomness comes from ``seed``.

        Args:
            slot: where.
            embedding: the prompt.
            seed: root of the initial latent and of all noise drawn later.
            negative: what guidance leads away from; None is the empty prompt.
            guidance_scale: the episode's own; None is the engine's.
            noise: of standard deviation 1, for the initial latent; None draws it from ``seed``.

        Raises:
            SlotError: the slot is not empty.
            ConfigError: the scale is negative, or asks for guidance that this engine does not compute.
        """
        self._slots.require(slot, Phase.EMPTY)
        self._condition.put(slot, embedding, negative=negative, guidance_scale=guidance_scale)
        self._slots.admit(slot)
        drawn = self._draw(generator(seed, "latent")) if noise is None else noise.to(self._backbone.device)
        self._latents.start(slot, drawn * self._table.init_noise_sigma)
        self._episodes[slot] = SlotEpisode(
            seed=seed,
            words=embedding.keep.to(self._backbone.device),
            refine_noise=generator(seed, "refine"),
            solver_noise=generator(seed, "solver"),
        )

    @torch.inference_mode()
    def tick(self) -> None:
        """One network call over all slots; each running slot is one NFE further.

        Raises:
            SlotError: no slot has anything to run.
        """
        running = self._slots.running
        if not any(running):
            raise SlotError("A tick would do nothing: admit an episode, or act on the slots that wait for a decision.")
        self._pass = None  # its activations need not outlive the next pass's
        moves, self._moves = self._moves, Moves()  # made once, even if the pass fails and is tried again
        self._move(moves)
        self._latents.step(self._slots.rows, running, self._condition.predict)
        self._pass = self._backbone.last_pass()
        self._moves = self._slots.after_pass(self._latents.finite())

    @torch.inference_mode()
    def act(self, slot_actions: Mapping[int, Action]) -> None:
        """Take decisions in slots that wait for one.

        Raises:
            SlotError: one of the slots is not DECIDING; then no action is taken.
        """
        moves = self._slots.act(slot_actions)
        if moves.refine:
            assert self._pass is not None
            rows = [self._condition.row(slot) for slot in moves.refine]
            self._refining.give_masks(self._at(moves.refine), self._pass, rows)
        self._moves.add(moves)

    @torch.inference_mode()
    def latents(self) -> Float[Tensor, "slot c h w"]:
        """Copy of what each slot's next pass begins with, once all decisions are taken; of a DONE slot, its result."""
        moves, self._moves = self._moves, Moves()
        self._move(moves)
        return self._latents.present(self.done())

    @torch.inference_mode()
    def put_latents(self, slot_latents: Mapping[int, Float[Tensor, "c h w"]]) -> None:
        """Replace what ``latents`` has of some slots."""
        self._latents.replace(slot_latents, self.done())

    @torch.inference_mode()
    def set_guidance_scale(self, slot: int, guidance_scale: float) -> None:
        """Guide the rest of a slot's episode by another scale.

        Raises:
            SlotError: the slot is empty.
            ConfigError: the scale is negative, or asks for guidance that this engine does not compute.
        """
        self._episode(slot)
        self._condition.set_scale(slot, guidance_scale)

    def snapshot(self, slot: int) -> SlotSnapshot:
        """State of an episode that waits for a decision, so that two decisions can be tried after each other.

        Raises:
            SlotError: the slot is not DECIDING.
        """
        self._slots.require(slot, Phase.DECIDING)
        return SlotSnapshot(
            state=self._slots.state(slot),
            latents=self._latents.copies(slot),
            solver_noise=self._episode(slot).solver_noise.get_state(),
        )

    def put_back(self, slot: int, snapshot: SlotSnapshot) -> None:
        """Bring a slot back to the decision of a snapshot, once what was tried there is DONE.

        Attention is not part of it: a refine must not be what comes next.

        Raises:
            SlotError: the slot is not DONE.
        """
        self._slots.require(slot, Phase.DONE)
        self._slots.put_back(slot, snapshot.state)
        with torch.inference_mode():
            self._latents.put_back(slot, snapshot.latents)
        self._episode(slot).solver_noise.set_state(snapshot.solver_noise)

    def release(self, slot: int) -> None:
        """Empty a slot whose episode is done or has failed, or is given up where it waits for a decision.

        Raises:
            SlotError: its episode is in the middle of its passes, or there is none.
        """
        self._slots.release(slot)
        self._episodes[slot] = None
        with torch.inference_mode():
            self._latents.clear(slot)

    def decode(self) -> NDArray[np.uint8]:
        """Images (S, H, W, 3) of every slot's z0_pred, always all of them: a fixed batch shape, as in a tick."""
        with torch.inference_mode():
            return self._backbone.decode(self.z0_pred.nan_to_num())

    def decode_one(self, slot: int) -> NDArray[np.uint8]:
        """Image (H, W, 3) of one slot's z0_pred, decoded alone."""
        with torch.inference_mode():
            return self._backbone.decode(self.z0_pred[slot : slot + 1].nan_to_num())[0]

    @property
    def previews(self) -> bool:
        """Whether ``preview`` costs less than ``decode``."""
        return self._backbone.previews

    def preview(self) -> NDArray[np.uint8]:
        """Images (S, H, W, 3) as of ``decode``, but by the cheaper decoder: they are only looked at."""
        with torch.inference_mode():
            return self._backbone.preview(self.z0_pred.nan_to_num())

    def middle_features(self) -> Float[Tensor, "slot width"]:
        """Features (S, m) of the network's middle block in the last tick, for each slot's prompt.

        Raises:
            SlotError: there was no tick yet.
        """
        if self._pass is None:
            raise SlotError("There are no features before the first tick.")
        with torch.inference_mode():
            return self._pass.middle_features()[-len(self._slots) :]

    def _move(self, moves: Moves) -> None:
        self._latents.commit(moves.commit, lambda slot: self._draw(self._episode(slot).solver_noise))
        slots = [*moves.refine, *moves.renoise]
        if slots:
            which = torch.tensor(slots, device=self._backbone.device)
            noised = self._refining.noised(
                self.z0_pred.index_select(0, which), refine=self._at(moves.refine), renoise=self._at(moves.renoise)
            )
            self._latents.put(which, noised)

    def _draw(self, stream: torch.Generator) -> Float[Tensor, "c h w"]:
        return torch.randn(self._backbone.latent_shape, generator=stream).to(self._backbone.device)

    def _at(self, slots: Sequence[int]) -> list[AtStep]:
        return [AtStep(episode=self._episode(slot), step=self._slots.step(slot)) for slot in slots]

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
