"""CLIP adapter: one image forward gives the embedding that every score on CLIP features starts from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from addiffusion.embedded.assets import weights_path
from addiffusion.embedded.clip import CLIP_WIDTH, image_embedding, load_clip, text_embedding


class ClipScorer:
    """The embedded CLIP in fp32."""

    def __init__(self, device: torch.device) -> None:
        model, self.tokenize = load_clip(weights_path("clip"))
        self._model = model.to(device)
        self._device = device
        self.image_forwards = 0
        """Image batches seen: tests check that scores share a forward."""

    @property
    def width(self) -> int:
        """Width ``e`` of the embeddings."""
        return CLIP_WIDTH

    @torch.inference_mode()
    def embed_images(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n e"]:
        """L2-normalised."""
        self.image_forwards += 1
        return image_embedding(self._model, x)

    @torch.inference_mode()
    def embed_texts(self, prompts: Sequence[str]) -> Float[Tensor, "n e"]:
        """L2-normalised; one prompt at a time, so a text's embedding does not depend on its company."""
        rows = [text_embedding(self._model, self.tokenize([prompt]).to(self._device)) for prompt in prompts]
        return torch.cat(rows)


def cosine(images: Float[Tensor, "n e"], texts: Float[Tensor, "n e"]) -> Float[Tensor, " n"]:
    """CLIP score on the plain cosine scale (not 100 x or 2.5 x): L2-normalised rows in, [-1, 1] out."""
    return (images * texts).sum(dim=1)
