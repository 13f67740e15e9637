"""The port between whoever has images and whoever can judge them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from addiffusion.records import ScoreReply, ScoreRequest


class Scoring(Protocol):
    """Scores images against prompts: in this process, or behind the reward service.

    Scoring is a pure function of image and prompt, so a request may be sent twice.
    """

    @property
    def clip_width(self) -> int:
        """Width ``e`` of CLIP image and text embeddings."""
        ...

    @property
    def dino_width(self) -> int:
        """Width ``f`` of DINO features."""
        ...

    def embed_text(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """(n, e) L2-normalised CLIP text embeddings."""
        ...

    def score(self, request: ScoreRequest) -> ScoreReply:
        """Scores and embeddings, in the order of the request's images.

        Raises:
            ContractError: the request itself is malformed (shapes, counts, names). A single image or prompt that
                can't be scored is no exception: its row is NaN and its entry in ``errors`` says why.
        """
        ...
