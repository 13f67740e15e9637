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
from addiffusion.observation.clip import ClipObservation, ImageScores
from addiffusion.observation.latent import LatentObservation, convergence, prompt_vector
from addiffusion.observation.layout import Layout
from addiffusion.records import Ticket
from addiffusion.sampling.engine import Engine
from addiffusion.scorers.base import Scoring


@runtime_checkable
class DecidingEpisode(Protocol):
    """What an observation takes from an episode under way."""

    @property
    def ticket(self) -> Ticket:
        """The episode's ticket, for its price and its prompt."""
        ...

    @property
    def decisions(self) -> Sequence[object]:
        """Those taken so far."""
        ...

    @property
    def last_judged(self) -> ImageScores | None:
        """Scores at the previous decision; None before the first."""
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
    needs_images: bool
    """Whether decisions need decoded and scored images."""

    def rows(
        self,
        engine: Engine,
        builders: Mapping[int, DecidingEpisode],
        judged: Mapping[int, ImageScores],
        slots: Sequence[int],
    ) -> NDArray[np.float32]:
        """(S, p) phi of ``slots``; all other rows are 0.

        Args:
            engine: of all the slots.
            builders: episodes under way, by slot.
            judged: scores of the present predictions, by slot; empty where decisions need no images.
            slots: those that decide.
        """
        ...


class ClipObservationBuilder:
    """The ``clip`` observation."""

    needs_images = True

    def __init__(self, observation: ClipObservation) -> None:
        self._observation = observation
        self.layout = observation.layout

    def rows(
        self,
        engine: Engine,
        builders: Mapping[int, DecidingEpisode],
        judged: Mapping[int, ImageScores],
        slots: Sequence[int],
    ) -> NDArray[np.float32]:
        """(S, p) phi from the scorers' answer, as of ``ObservationBuilder``."""
        phi = np.zeros((len(engine), self.layout.width), np.float32)
        for slot in slots:
            builder = builders[slot]
            phi[slot] = self._observation.row(
                engine.info(slot),
                now=judged[slot],
                before=builder.last_judged,
                text_embedding=builder.text_embedding,
                c_nfe=builder.ticket.c_nfe,
            )
        return phi


class LatentObservationBuilder:
    """The ``latent`` observation; holds each slot's clean prediction of the decision before."""

    needs_images = False

    def __init__(self, observation: LatentObservation, tickets: EncodedPrompts) -> None:
        self._observation = observation
        self._tickets = tickets
        self._before: Float[Tensor, "slot c h w"] | None = None
        self.layout = observation.layout

    @torch.inference_mode()
    def rows(
        self,
        engine: Engine,
        builders: Mapping[int, DecidingEpisode],
        judged: Mapping[int, ImageScores],  # noqa: ARG002 - nothing was scored
        slots: Sequence[int],
    ) -> NDArray[np.float32]:
        """(S, p) phi from the denoiser's features, as of ``ObservationBuilder``."""
        now = engine.z0_pred
        before = now.clone() if self._before is None else self._before
        for slot in slots:
            if not builders[slot].decisions:
                before[slot] = now[slot]
        middle = engine.middle_features().cpu().numpy()
        moved = convergence(now, before).cpu().numpy()
        for slot in slots:
            before[slot] = now[slot]
        self._before = before
        phi = np.zeros((len(engine), self.layout.width), np.float32)
        for slot in slots:
            ticket = builders[slot].ticket
            phi[slot] = self._observation.row(
                engine.info(slot),
                middle=middle[slot],
                convergence=moved[slot],
                text=prompt_vector(self._tickets.condition(ticket)),
                c_nfe=ticket.c_nfe,
            )
        return phi


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
        return LatentObservationBuilder(observation, tickets)
    scales, width = config.reward.scales, scoring.clip_width
    return ClipObservationBuilder(
        ClipObservation(config.observation, clip_width=width, scales=scales, num_steps=num_steps)
    )
