"""How a group of slots sees what its policy decides on: through the scorers, or through the denoiser itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from addiffusion.backbones.base import Backbone
from addiffusion.config import Config
from addiffusion.observation.clip import ClipObservation, Judged
from addiffusion.observation.latent import LatentObservation, convergence, prompt_vector
from addiffusion.observation.layout import Layout
from addiffusion.sampling.engine import Engine
from addiffusion.scorers.base import Scoring
from rollout_workers.episode_builder import Draft
from rollout_workers.ticket_queue import Intake


class Sight(Protocol):
    """Phi of deciding slots."""

    layout: Layout
    looks: bool
    """Whether decisions need decoded and scored images."""

    def rows(
        self, engine: Engine, drafts: Mapping[int, Draft], judged: Mapping[int, Judged], slots: Sequence[int]
    ) -> NDArray[np.float32]:
        """(S, p) phi of ``slots``; all other rows are 0."""
        ...


class ClipSight:
    """The ``clip`` observation."""

    looks = True

    def __init__(self, observation: ClipObservation) -> None:
        self._observation = observation
        self.layout = observation.layout

    def rows(
        self, engine: Engine, drafts: Mapping[int, Draft], judged: Mapping[int, Judged], slots: Sequence[int]
    ) -> NDArray[np.float32]:
        """One row after the other, from what the scorers say."""
        phi = np.zeros((len(engine), self.layout.width), np.float32)
        for slot in slots:
            draft = drafts[slot]
            phi[slot] = self._observation.row(
                engine.info(slot),
                now=judged[slot],
                before=draft.last_judged,
                text_embedding=draft.text_embedding,
                c_nfe=draft.ticket.c_nfe,
            )
        return phi


class LatentSight:
    """The ``latent`` observation; remembers each slot's clean prediction of the decision before."""

    looks = False

    def __init__(self, observation: LatentObservation, intake: Intake) -> None:
        self._observation = observation
        self._intake = intake
        self._before: Tensor | None = None
        self.layout = observation.layout

    @torch.inference_mode()
    def rows(
        self,
        engine: Engine,
        drafts: Mapping[int, Draft],
        judged: Mapping[int, Judged],  # noqa: ARG002 - nothing was scored
        slots: Sequence[int],
    ) -> NDArray[np.float32]:
        """One pass of arithmetic over all slots, then one row after the other."""
        now = engine.z0_pred
        before = now.clone() if self._before is None else self._before
        for slot in slots:
            if not drafts[slot].decisions:
                before[slot] = now[slot]
        middle = engine.middle_features().cpu().numpy()
        moved = convergence(now, before).cpu().numpy()
        for slot in slots:
            before[slot] = now[slot]
        self._before = before
        phi = np.zeros((len(engine), self.layout.width), np.float32)
        for slot in slots:
            ticket = drafts[slot].ticket
            phi[slot] = self._observation.row(
                engine.info(slot),
                middle=middle[slot],
                convergence=moved[slot],
                text=prompt_vector(self._intake.condition(ticket)),
                c_nfe=ticket.c_nfe,
            )
        return phi


def make_sight(config: Config, *, backbone: Backbone, scoring: Scoring, intake: Intake) -> Sight:
    """The sight of one group, as ``observation.kind`` wants it."""
    num_steps = config.sampler.num_steps
    if config.observation.kind == "latent":
        text_width = len(prompt_vector(backbone.uncond()))
        observation = LatentObservation(
            config.observation, middle_width=backbone.middle_width, text_width=text_width, num_steps=num_steps
        )
        return LatentSight(observation, intake)
    scales, width = config.reward.scales, scoring.clip_width
    return ClipSight(ClipObservation(config.observation, clip_width=width, scales=scales, num_steps=num_steps))
