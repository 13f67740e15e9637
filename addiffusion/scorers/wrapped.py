"""What everything around a ``Scoring`` leaves as it is."""

from __future__ import annotations

from addiffusion.scorers.base import Scoring


class WrappedScoring:
    """Base of whatever changes how a ``Scoring`` answers, not what can be asked of it."""

    def __init__(self, scoring: Scoring) -> None:
        self._scoring = scoring

    @property
    def names(self) -> tuple[str, ...]:
        """Every score column a request may ask for."""
        return self._scoring.names

    @property
    def clip_width(self) -> int:
        """Width ``e`` of CLIP embeddings."""
        return self._scoring.clip_width

    @property
    def dino_width(self) -> int:
        """Width ``f`` of DINO features."""
        return self._scoring.dino_width
