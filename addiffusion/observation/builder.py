"""Observations of the decisions of an engine's slots: from the scorers' answer, or from features of the denoiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from addiffusion.backbones.base import Backbone, PromptEmbedding
from addiffusion.config import Config
from addiffusion.observation.attempts import BestAttempts, RedrawnEpisode
from addiffusion.observation.clip import ClipObservation, ImageScores
from addiffusion.observation.latent import Convergence, LatentObservation, prompt_vector
from addiffusion.observation.layout import Layout
from addiffusion.observation.preview_scores import PreviewedEpisode, PreviewScores
from addiffusion.records import EMBEDDING_NAMES, Ticket
from addiffusion.sampling.engine import Engine
from addiffusion.sampling.slot import SlotInfo
from addiffusion.scorers.base import Scoring


@runtime_checkable
class DecidingEpisode(PreviewedEpisode, RedrawnEpisode, Protocol):
    """What an observation takes from an episode under way."""

    @property
    def ticket(self) -> Ticket:
        """The episode's ticket, for its price and its prompt."""
        ...

    @property
    def last_judged(self) -> ImageScores | None:
        """Scores at the decision before; None where it had none."""
        ...

    @property
    def text_embedding(self) -> NDArray[np.float32]:
        """(e,) CLIP embedding of the prompt; empty where the observation needs none."""
        ...


@runtime_checkable
class EncodedPrompts(Protocol):
    """Encoded prompts by ticket."""

    def condition(self, ticket: Ticket) -> PromptEmbedding:
        """The ticket's encoded prompt."""
        ...


@runtime_checkable
class ObservationBuilder(Protocol):
    """Builds phi of deciding slots."""

    layout: Layout
    scores_every_decision: bool
    """Whether each decision needs its image decoded and scored."""
    redraws_unseen: bool
    """Whether an image can begin again at a decision without scores."""
    embeddings: tuple[str, ...]
    """Embeddings of its images that it needs beside their scores."""
    attempts: BestAttempts
    """What goes on after a redraw."""

    def due(self, engine: Engine, builders: Mapping[int, DecidingEpisode], slots: Sequence[int]) -> Sequence[int]:
        """Those of deciding ``slots`` whose image has to be decoded and scored before the decision."""
        ...

    def rows(
        self,
        engine: Engine,
        builders: Mapping[int, DecidingEpisode],
        judged: Mapping[int, ImageScores],
        slots: Sequence[int],
    ) -> NDArray[np.float32]:
        """(n, p) phi of ``slots``.

        Args:
            engine: of all slots.
            builders: episodes under way, by slot.
            judged: scores of the present predictions, of the slots that were ``due``.
            slots: those that decide, at most as many as a pass leads on.
        """
        ...


class ClipObservationBuilder:
    """The ``clip`` observation."""

    scores_every_decision = True
    redraws_unseen = True
    embeddings: tuple[str, ...] = EMBEDDING_NAMES

    def __init__(self, observation: ClipObservation, attempts: BestAttempts) -> None:
        self._observation, self.attempts = observation, attempts
        self.layout = observation.layout

    def due(self, engine: Engine, builders: Mapping[int, DecidingEpisode], slots: Sequence[int]) -> Sequence[int]:  # noqa: ARG002
        """All of them."""
        return slots

    def rows(
        self,
        engine: Engine,
        builders: Mapping[int, DecidingEpisode],
        judged: Mapping[int, ImageScores],
        slots: Sequence[int],
    ) -> NDArray[np.float32]:
        """(n, p) phi from the scorers' answer, as of ``ObservationBuilder``."""
        rows = (
            self._observation.row(
                engine.info(slot),
                now=judged[slot],
                before=None if _is_new(engine, slot, builders[slot]) else builders[slot].last_judged,
                text_embedding=builders[slot].text_embedding,
                c_nfe=builders[slot].ticket.c_nfe,
            )
            for slot in slots
        )
        return np.stack([*rows])


class LatentObservationBuilder:
    """The ``latent`` observation; holds each slot's clean prediction of the decision before, and what it saw last."""

    scores_every_decision = False
    embeddings: tuple[str, ...] = ()

    def __init__(
        self,
        observation: LatentObservation,
        tickets: EncodedPrompts,
        attempts: BestAttempts,
        previews: PreviewScores | None = None,
    ) -> None:
        """Nothing is known of any slot.

        Args:
            observation: lays phi out.
            tickets: gives the encoded prompts.
            attempts: what goes on after a redraw.
            previews: says when one is due; None: the policy sees none.
        """
        self._observation, self.attempts = observation, attempts
        self._previews = previews
        self.redraws_unseen = previews is None
        self._tickets = tickets
        self._before: Float[Tensor, "slot c h w"] | None = None
        self._moved = Convergence()
        self._texts: dict[int, tuple[PromptEmbedding, NDArray[np.float32]]] = {}
        """Prompt of each slot, and its vector as phi has it."""
        self.layout = observation.layout

    def due(self, engine: Engine, builders: Mapping[int, DecidingEpisode], slots: Sequence[int]) -> Sequence[int]:
        """Those whose preview is due; none, where the policy sees none."""
        seen = self._previews
        return [] if seen is None else [one for one in slots if seen.is_due(one, engine.info(one), builders[one])]

    @torch.inference_mode()
    def rows(
        self,
        engine: Engine,
        builders: Mapping[int, DecidingEpisode],
        judged: Mapping[int, ImageScores],
        slots: Sequence[int],
    ) -> NDArray[np.float32]:
        """(n, p) phi from the denoiser's features, as of ``ObservationBuilder``."""
        middle = engine.middle_features(slots).cpu().numpy()
        moved = self._convergence(engine, builders, slots)
        tickets = [builders[slot].ticket for slot in slots]
        texts = [self._text(slot, self._tickets.condition(one)) for slot, one in zip(slots, tickets, strict=True)]
        infos = [engine.info(slot) for slot in slots]
        return self._observation.rows(
            infos,
            middle=middle,
            convergence=moved[: len(slots)],
            text=np.stack(texts),
            prices=[one.c_nfe for one in tickets],
            previews=[self._preview(*seen, builders, judged) for seen in zip(slots, infos, strict=True)]
            if self._previews
            else (),
        )

    def _preview(
        self,
        slot: int,
        info: SlotInfo,
        builders: Mapping[int, DecidingEpisode],
        judged: Mapping[int, ImageScores],
    ) -> Sequence[float]:
        assert self._previews is not None
        self._previews.note(slot, info, builders[slot], judged.get(slot))
        return self._previews.row(slot, info)

    def _text(self, slot: int, embedding: PromptEmbedding) -> NDArray[np.float32]:
        """(e,) vector of a slot's prompt as phi has it, computed at its first decision."""
        known = self._texts.get(slot)
        if known is None or known[0] is not embedding:
            known = self._texts[slot] = embedding, self._observation.scaled(prompt_vector(embedding)[None])[0]
        return known[1]

    def _convergence(
        self, engine: Engine, builders: Mapping[int, DecidingEpisode], slots: Sequence[int]
    ) -> list[list[float]]:
        """(at least n, 4) statistics of each slot, at one batch shape: so none depends on how many decide with it."""
        present = engine.z0_pred
        past = torch.zeros_like(present) if self._before is None else self._before
        new = [slot for slot in slots if _is_new(engine, slot, builders[slot])]
        if new:
            past = past.clone()
            past[new] = present[new]
        if [*slots] == [*range(len(present))]:  # all of them, as in a call of equal images: in fewer operations
            self._before = present  # nobody changes it: later ticks make a new one
            return self._moved(present, past)
        which = torch.tensor([*slots, *[slots[0]] * (engine.images_per_pass - len(slots))], device=present.device)
        now, before = present.index_select(0, which), past.index_select(0, which)
        self._before = past.index_copy(0, which[: len(slots)], now[: len(slots)])
        return self._moved(now, before)


def _is_new(engine: Engine, slot: int, episode: DecidingEpisode) -> bool:
    """Whether the decision before was about another latent, or there was none."""
    return episode.begins or engine.came_back(slot)


def make_observation_builder(
    config: Config, *, backbone: Backbone, scoring: Scoring, tickets: EncodedPrompts
) -> ObservationBuilder:
    """Observation builder of one engine by ``observation.kind``.

    Args:
        config: of the run.
        backbone: gives the widths of its features.
        scoring: gives the width of its embeddings.
        tickets: gives the encoded prompts.
    """
    num_steps = config.sampler.num_steps
    if config.observation.kind == "latent":
        text_width = len(prompt_vector(backbone.uncond()))
        observation = LatentObservation(
            config.observation, middle_width=backbone.middle_width, text_width=text_width, num_steps=num_steps
        )
        if not config.observation.previews:
            return LatentObservationBuilder(observation, tickets, BestAttempts(config.reward))
        previews = PreviewScores(config.observation, config.reward.scales)
        attempts = BestAttempts(config.reward, comparable=previews.as_far)
        return LatentObservationBuilder(observation, tickets, attempts, previews)
    scales, width = config.reward.scales, scoring.clip_width
    observation = ClipObservation(config.observation, clip_width=width, scales=scales, num_steps=num_steps)
    return ClipObservationBuilder(observation, BestAttempts(config.reward))
