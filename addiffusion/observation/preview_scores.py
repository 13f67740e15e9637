"""Previews that a ``latent`` policy sees: at a few points of its schedule an image is decoded and scored for it.

The denoiser's own features say how hard a prompt is, and next to nothing of whether this image will do: their rank
correlation with what a prompt's images differ by is at most 0.2, that of one preview's CLIP score 0.4 to 0.7
(docs/training.md). A preview at every step costs as much as the passes, one in each attempt a quarter of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from addiffusion.actions import Action
from addiffusion.config import ObservationSection, Scales
from addiffusion.observation.clip import ImageScores, limited
from addiffusion.observation.layout import PREVIEW_NAMES
from addiffusion.records import SCORE_NAMES
from addiffusion.sampling.slot import SlotInfo

_ROUNDING = 1e-9
_NOT_YET = (0.0,) * len(PREVIEW_NAMES)
_SEEN = tuple(SCORE_NAMES.index(name) for name in ("clip", "aesthetic", "image_reward"))


@runtime_checkable
class PreviewedEpisode(Protocol):
    """What decides whether a preview is due."""

    @property
    def begins(self) -> bool:
        """Whether nothing was decided about its present attempt."""
        ...

    @property
    def refined(self) -> bool:
        """Whether the last decision was a refine."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Preview:
    scores: tuple[float, ...]
    """In units of the reward, above the usual ones."""
    share: float
    """Of its schedule, where it was seen."""
    passed: int
    """Points of the configuration up to there."""


class PreviewScores:
    """Scores of the last preview of each slot."""

    def __init__(self, section: ObservationSection, scales: Scales) -> None:
        """Nothing was seen.

        Args:
            section: says when previews are due.
            scales: units of the scores.
        """
        usual = section.usual_scores
        self._at = section.previews
        self._usual = (usual.clip, usual.aesthetic, usual.image_reward)
        self._units = (scales.clip, scales.aesthetic, scales.image_reward)
        self._known: dict[int, _Preview] = {}

    def is_due(self, slot: int, info: SlotInfo, episode: PreviewedEpisode) -> bool:
        """Whether the image has to be scored before the decision: at a point, or after a refine of what was seen."""
        known = None if episode.begins else self._known.get(slot)
        if known is None:
            return self._passed(info) > 0
        return episode.refined or self._passed(info) > known.passed

    def note(self, slot: int, info: SlotInfo, episode: PreviewedEpisode, judged: ImageScores | None) -> None:
        """Take in a decision.

        Args:
            slot: whose.
            info: where it stands.
            episode: its image under way.
            judged: scores of the preview; None: there was none.
        """
        if judged is not None:
            given = (float(judged.scores[place]) for place in _SEEN)
            scores = tuple(
                limited((score - usual) / unit)
                for score, usual, unit in zip(given, self._usual, self._units, strict=True)
            )
            self._known[slot] = _Preview(scores=scores, share=_share(info), passed=self._passed(info))
        elif episode.begins:
            self._known.pop(slot, None)

    def row(self, slot: int, info: SlotInfo) -> Sequence[float]:
        """In the order of PREVIEW_NAMES; zeros before the first."""
        known = self._known.get(slot)
        return _NOT_YET if known is None else (1.0, *known.scores, _share(info) - known.share)

    def as_far(self, now: SlotInfo, then: SlotInfo) -> bool:
        """Whether ``now`` has come to as many of the configuration's points as ``then``."""
        return self._passed(now) >= self._passed(then)

    def _passed(self, info: SlotInfo) -> int:
        return bisect_right(self._at, _share(info) + _ROUNDING)


def _share(info: SlotInfo) -> float:
    return info.step / info.num_steps


def permitted(allowed: tuple[bool, ...], *, seen: bool) -> tuple[bool, ...]:
    """What is allowed at a decision, but beginning again only where the image was ``seen``."""
    return allowed if seen else tuple(can and action != Action.REDRAW for action, can in enumerate(allowed))
