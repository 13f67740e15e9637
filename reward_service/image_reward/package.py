"""The original ImageReward package, for a process of an environment of its own.

This module travels to that process by value: it may use nothing of this project, and only what that environment has
(torch, numpy, PIL, image-reward).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class PackageImageReward:
    """The package's own model, preprocessing and tokenizer, called in batches."""

    MAX_TOKENS = 35

    def __init__(self, weights: str, med_config: str | None, device: str) -> None:
        """Load the model.

        Args:
            weights: file of the checkpoint, or a name the package knows, which it downloads.
            med_config: file of its text configuration; None downloads it.
            device: torch device; ``auto`` is the GPU where there is one.
        """
        self._torch: Any = importlib.import_module("torch")
        pillow: Any = importlib.import_module("PIL.Image")
        package: Any = importlib.import_module("ImageReward")
        if device == "auto":
            device = "cuda" if self._torch.cuda.is_available() else "cpu"
        self._to_pil = pillow.fromarray
        self._model = package.load(weights, device=device, med_config=med_config)
        self._device = device

    def score(self, images: NDArray[np.uint8], prompts: Sequence[str]) -> NDArray[np.float32]:
        """(n,) scores of (n, H, W, 3) images. `score_gard` is the package's only batched call."""
        pixels = self._torch.stack([self._model.preprocess(self._to_pil(image)) for image in images])
        texts = self._model.blip.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=self.MAX_TOKENS, return_tensors="pt"
        )
        with self._torch.no_grad():
            scores = self._model.score_gard(
                texts.input_ids.to(self._device), texts.attention_mask.to(self._device), pixels.to(self._device)
            )
        return scores.float().reshape(-1).cpu().numpy()
