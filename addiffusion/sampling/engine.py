"""Continuous batching: S slots, each at its own place in its own episode, one network call of R rows per tick."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from addiffusion.actions import Action
from addiffusion.backbones.base import Backbone, PromptEmbedding
from addiffusion.config import RefineSection, SamplerSection
from addiffusion.errors import ConfigError, SlotError
from addiffusion.sampling.condition import Condition
from addiffusion.sampling.latents import Latents
from addiffusion.sampling.moves import Moves, Pick
from addiffusion.sampling.refining import AtStep, Refining, SlotEpisode
from addiffusion.sampling.remembered import Remembered
from addiffusion.sampling.seen import bucket
from addiffusion.sampling.slot import Phase
from addiffusion.sampling.slots import Slots
from addiffusion.sampling.solver_tables.schedules import Schedule, Schedules
from addiffusion.seeds import generator
from addiffusion.setting import Setting

_NO_SETTING = Setting()


class Engine(Remembered):
    """Denoises S images at once under per-image control.

    A tick reads pick, pass, update, outcomes. It picks slots that can take part, those of the oldest episodes first,
    until R rows are full (a guided image takes two, another one), and runs R rows through the network, taken or not:
    the batch shape never changes, so on a CPU an episode is bitwise a function of R, the same in any slot, beside any
    neighbours, admitted in any order. A slot that waits for its decision is not picked. Latents are float32 whatever
    the network's precision. The result is a clean prediction; docs/engine.md says where diffusers returns another.
    """

    @torch.inference_mode()
    def __init__(  # noqa: PLR0913 - what an engine is made of, by name
        self,
        backbone: Backbone,
        sampler: SamplerSection,
        refine: RefineSection,
        *,
        slots: int,
        guidance_scale: float,
        rows: int | None = None,
        row_buckets: bool = False,
        schedules: Schedules | None = None,
    ) -> None:
        """An engine of empty slots.

        Args:
            backbone: the model.
            sampler: solver and schedule.
            refine: what a refine does.
            slots: images under way at once (S).
            guidance_scale: of episodes that bring none; 1 or less computes no guidance for any of them.
            rows: of a network pass (R); None: what all slots take together.
            row_buckets: a pass, and a batch of decoded images, has the smallest power of two of rows that holds what is
                in it, at most R.
            schedules: of the first three, where they are at hand; None makes them.

        Raises:
            ConfigError: the model can't be sampled so, or no image fits into so many rows.
        """
        per_image = 2 if guidance_scale > 1 else 1
        rows = per_image * slots if rows is None else rows
        if rows < per_image:
            raise ConfigError(f"rows={rows} hold no image, which takes {per_image} of them: give more.", rows=rows)
        self._sampler, self._guidance_scale = sampler, guidance_scale
        self._schedules = schedules or Schedules(backbone, sampler, refine)
        self._refining = Refining(backbone, refine)
        super().__init__(
            backbone,
            Slots(slots, self._schedules, rows_per_pass=per_image, refine_passes=refine.k),
            Latents(self._schedules, slots, backbone.latent_shape, backbone.device),
            rows=rows,
            images_per_pass=rows // per_image,
            buckets=row_buckets,
        )
        self._condition = Condition(backbone, slots, guidance_scale=guidance_scale)
        self._moves = Moves()
        """What the next tick begins with. Nobody sees the latents of a slot with a move to make before."""

    @torch.inference_mode()
    def admit(  # noqa: PLR0913 - all that is an episode's own, by name
        self,
        slot: int,
        *,
        embedding: PromptEmbedding,
        seed: int,
        negative: PromptEmbedding | None = None,
        guidance_scale: float | None = None,
        setting: Setting | None = None,
        noise: Float[Tensor, "c h w"] | None = None,
    ) -> None:
        """Start an episode in an empty slot; all of its randomness comes from ``seed``.

        Args:
            slot: where.
            embedding: the prompt.
            seed: root of the initial latent and of all noise drawn later.
            negative: what guidance leads away from; None is the empty prompt.
            guidance_scale: the episode's own; None is the setting's. 1 or less: its passes are not guided.
            setting: the episode's own; what it leaves open is the engine's. Its negative prompt is ``negative`` here.
            noise: of standard deviation 1, for the initial latent; None draws it from ``seed``.

        Raises:
            SlotError: the slot is not empty.
            ConfigError: the model can't be sampled with this setting, or no image can be had for its max_cost.
        """
        self._slots.require(slot, Phase.EMPTY)
        setting = setting or _NO_SETTING
        schedule = self._planned(setting)
        scale = setting.guidance_scale if guidance_scale is None else guidance_scale
        guided = self._condition.put(slot, embedding, negative=negative, guidance_scale=scale)
        limit = self._cap(setting, schedule, guided=guided)
        self._slots.admit(slot, guided=guided, schedule=schedule, max_cost=limit)
        drawn = self._draw(generator(seed, "latent")) if noise is None else noise.to(self._backbone.device)
        self._latents.start(slot, drawn * schedule.init_noise_sigma)
        self._episodes[slot] = SlotEpisode(
            seed=seed,
            words=embedding.keep.to(self._backbone.device),
            refine_noise=generator(seed, "refine"),
            solver_noise=generator(seed, "solver"),
            guidance_scale=self._guidance_scale if scale is None else scale,
        )

    def check(self, setting: Setting) -> Schedule:
        """The schedule of a setting that could be admitted.

        Raises:
            ConfigError: as of ``admit``.
        """
        schedule = self._planned(setting)
        guided = self._condition.is_guided(setting.guidance_scale, away=setting.negative_prompt is not None)
        self._slots.check_payable(schedule, guided=guided, max_cost=self._cap(setting, schedule, guided=guided))
        return schedule

    @property
    def schedule_count(self) -> int:
        """Schedules that were asked for; they stay in memory."""
        return len(self._schedules)

    @torch.inference_mode()
    def tick(self) -> None:
        """One network call; each slot that takes part is one NFE further.

        Raises:
            SlotError: no slot has anything to run.
        """
        pick = self._slots.pick(self._rows)
        if not pick.slots:
            raise SlotError("A tick would do nothing: admit an episode, or act on the slots that wait for a decision.")
        moves, self._moves = self._moves, Moves()  # made once, even if the pass fails and is tried again
        self._move(moves)
        network = partial(self._condition.predict, pick, self._rows_of(pick))
        finite = self._latents.step(pick.slots, [self._slots.row(slot) for slot in pick.slots], network)
        self._moves = self._slots.after_pass(pick.slots, finite)
        record = self._backbone.last_pass()
        for row, slot in enumerate(pick.slots, len(pick.guided)):
            if self._slots.phase(slot) is Phase.DECIDING:
                self._last.note(slot, record, row)

    @torch.inference_mode()
    def act(self, slot_actions: Mapping[int, Action]) -> None:
        """Take decisions in slots that wait for one.

        Raises:
            SlotError: one of the slots is not DECIDING, or its action is not allowed; then no action is taken.
        """
        moves = self._slots.act(slot_actions)
        for record, slots, rows in self._last.by_record(moves.refine):
            self._refining.give_masks(self._at(slots), record, rows)
        self._last.forget(slot_actions)
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
        episode = self._episode(slot)
        self._slots.set_guided(slot, guided=self._condition.set_scale(slot, guidance_scale))
        episode.guidance_scale = guidance_scale

    def release(self, slot: int) -> None:
        """Empty a slot whose episode is done or has failed, or is given up where it waits for a decision.

        Raises:
            SlotError: its episode is in the middle of its passes, or there is none.
        """
        self._slots.require(slot, Phase.DONE, Phase.FAILED, Phase.DECIDING)
        self.give_up(slot)

    def give_up(self, slot: int) -> None:
        """Empty a slot, wherever its episode is; no other one notices.

        Raises:
            SlotError: there is none.
        """
        self._slots.give_up(slot)
        self._moves.drop(slot)
        self._episodes[slot] = None
        self._last.forget([slot])
        with torch.inference_mode():
            self._latents.clear(slot)

    def _planned(self, setting: Setting) -> Schedule:
        return self._schedules.of(setting.sampler(self._sampler))

    def _cap(self, setting: Setting, schedule: Schedule, *, guided: bool) -> float:
        """Most that an image may cost: what its setting says, else the smaller of what the configuration does."""
        if setting.max_cost is not None:
            return setting.max_cost
        most, share = self._sampler.max_cost, self._sampler.max_cost_share
        of_full = math.inf if share is None else share * self._slots.full_cost(schedule, guided=guided)
        return of_full if most is None else min(most, of_full)

    def _rows_of(self, pick: Pick) -> int:
        """Rows of the network batch."""
        return bucket(pick.rows, self._rows) if self._buckets else self._rows

    def _move(self, moves: Moves) -> None:
        self._latents.leap(moves.leap)
        self._latents.commit(moves.commit, lambda slot: self._draw(self._episode(slot).solver_noise))
        for slot in moves.redraw:
            self._begin_again(slot)
        slots = [*moves.refine, *moves.renoise]
        if slots:
            which = torch.tensor(slots, device=self._backbone.device)
            noised = self._refining.noised(
                self.z0_pred.index_select(0, which), refine=self._at(moves.refine), renoise=self._at(moves.renoise)
            )
            self._latents.put(which, noised)

    def _begin_again(self, slot: int) -> None:
        """Draw an episode's next noise, and forget what was seen of the latent before."""
        episode = self._episode(slot)
        noise = self._draw(generator(episode.seed, "latent", self._slots[slot].redraws))
        self._latents.start(slot, noise * self._slots[slot].schedule.init_noise_sigma)
        episode.mask, episode.attention_entropy = None, 0.0

    def _draw(self, stream: torch.Generator) -> Float[Tensor, "c h w"]:
        return torch.randn(self._backbone.latent_shape, generator=stream).to(self._backbone.device)

    def _at(self, slots: Sequence[int]) -> list[AtStep]:
        return [AtStep(self._episode(slot), self._slots.step(slot), self._slots[slot].schedule) for slot in slots]
