"""The ``clip`` observation: CLIP embeddings of prediction and prompt, the timestep, and eight quality scalars.

Scaling. Each slice should be heard by an MLP, whatever model fills it. A sinusoidal slice of width ``w`` always has
norm sqrt(w / 2), so both embedding slices (L2-normalised by the scorer) are brought to that norm: the balance of the
slices is then the same for a 64-wide and a 768-wide CLIP, and components are of order 0.3 to 1. Multiplying by
sqrt(width) instead would let a 768-wide embedding drown the timestep and the eight scalars. Quality scalars are of
order one by the reward's own scales: one unit of a delta is one unit of reward before weighting.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from addiffusion.config import ObservationSection, Scales
from addiffusion.observation.layout import Layout, clip_layout
from addiffusion.observation.scalars import progress, setting_of, sinusoid
from addiffusion.records import SCORE_NAMES, ScoreReply
from addiffusion.sampling.slot import SlotInfo

CLIP_UNITS = 5.0
"""The CLIP score itself is divided by this many reward scales: a usual cosine of 0.25 becomes 1."""
UNIT_LIMIT = 5.0
"""Changes are clipped to this many units: early predictions jump, and a jump says no more than "not yet"."""

_CLIP, _AESTHETIC, _IMAGE_REWARD = (SCORE_NAMES.index(name) for name in ("clip", "aesthetic", "image_reward"))


def _none() -> NDArray[np.float32]:
    return np.zeros(0, np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageScores:
    """Scores and embeddings of one image."""

    scores: NDArray[np.float32]
    """(k,) in the order of SCORE_NAMES."""
    clip_embedding: NDArray[np.float32]
    """(e,) L2-normalised."""
    dino_embedding: NDArray[np.float32]
    """(f,) L2-normalised."""
    metrics: NDArray[np.float32] = field(default_factory=_none)
    """(m,) ``RecordAllStops.metrics``; none where nobody asks for them."""

    @classmethod
    def of(cls, reply: ScoreReply, row: int, *, metrics: NDArray[np.float32] | None = None) -> ImageScores:
        """Row ``row`` of a reply (and its metrics), copied out so that the reply itself can go."""
        return cls(
            scores=reply.values[row].copy(),
            clip_embedding=reply.clip_embedding[row].copy(),
            dino_embedding=reply.dino_embedding[row].copy(),
            metrics=_none() if metrics is None else metrics.copy(),
        )

    def without_embeddings(self) -> ImageScores:
        """The scores alone."""
        return replace(self, clip_embedding=_none(), dino_embedding=_none())


class ClipObservation:
    """Builds phi rows. Pure: what came before a decision is handed in, not remembered."""

    def __init__(self, section: ObservationSection, *, clip_width: int, scales: Scales, num_steps: int) -> None:
        """The observation of one model and schedule.

        Args:
            section: of the configuration.
            clip_width: e, of CLIP's embeddings.
            scales: units of the quality slice.
            num_steps: N, of the base schedule.
        """
        self.layout: Layout = clip_layout(
            clip_width=clip_width, timestep_width=section.timestep_width, setting=section.setting
        )
        self._scales = scales
        self._num_steps, self._timestep_width = num_steps, section.timestep_width
        self._norm = math.sqrt(section.timestep_width / 2)

    def row(
        self,
        info: SlotInfo,
        *,
        now: ImageScores,
        before: ImageScores | None,
        text_embedding: NDArray[np.float32],
        c_nfe: float,
    ) -> NDArray[np.float32]:
        """(p,) phi of one decision.

        Args:
            info: where the slot stands.
            now: scores of the present prediction.
            before: scores of the prediction at the previous decision; None at the first.
            text_embedding: (e,) L2-normalised CLIP embedding of the prompt.
            c_nfe: price of one NFE in this episode.

        Raises:
            ContractError: an embedding is not as wide as the layout says.
        """
        parts: dict[str, ArrayLike] = {
            "clip_image": now.clip_embedding * np.float32(self._norm),
            "clip_text": text_embedding * np.float32(self._norm),
            "timestep": sinusoid(info.timestep, self._timestep_width),
            "setting": setting_of(info),
            "quality": self._quality(info, now, before or now, c_nfe),
        }
        return self.layout.joined(parts, mismatch="the scorers in use are not the ones")

    def _quality(self, info: SlotInfo, now: ImageScores, before: ImageScores, c_nfe: float) -> NDArray[np.float32]:
        """(8,) in the order of QUALITY_NAMES.

        Args:
            info: where the slot stands.
            now: scores of the present prediction.
            before: of the one at the previous decision; the same record at the first.
            c_nfe: price of one NFE.
        """
        scales = self._scales
        score = now.scores.astype(np.float64)
        delta = (score - before.scores).tolist()
        similarity = 1.0 if before is now else float((now.dino_embedding * before.dino_embedding).sum())
        return np.array(
            [
                float(score[_CLIP]) / (CLIP_UNITS * scales.clip),
                limited(delta[_AESTHETIC] / scales.aesthetic),
                limited(delta[_IMAGE_REWARD] / scales.image_reward),
                # 1 where nothing changed, one less for each unit of change: similarities crowd just below 1.
                limited(1.0 - (1.0 - similarity) / scales.dino),
                *progress(info, num_steps=self._num_steps, c_nfe=c_nfe),
            ],
            dtype=np.float32,
        )


def limited(units: float) -> float:
    """At most UNIT_LIMIT either way."""
    return min(max(units, -UNIT_LIMIT), UNIT_LIMIT)
