"""The ``latent`` observation: features of the denoiser itself. Only ``previews`` are decoded and scored.

Slices. ``middle``: output of the network's middle block, mean over pixels; ``text``: one vector of the prompt;
``timestep``: sinusoidal; ``convergence``: how the clean prediction moves; ``preview``: scores of
the last preview, where the policy sees some; ``progress``: step, NFE, price, entropy. The
two feature slices are brought to the norm of the timestep's, as in the ``clip`` observation and for its reasons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from addiffusion.backbones.base import PromptEmbedding
from addiffusion.config import ObservationSection
from addiffusion.observation.layout import Layout, latent_layout
from addiffusion.observation.scalars import progress, setting_of, sinusoid
from addiffusion.sampling.slot import SlotInfo

_TINY = 1e-12
_LEAST_CHANGE = 1e-4


class LatentObservation:
    """Builds phi rows. Pure: what came before a decision is handed in, not remembered."""

    def __init__(self, section: ObservationSection, *, middle_width: int, text_width: int, num_steps: int) -> None:
        """The observation of one model and schedule.

        Args:
            section: of the configuration.
            middle_width: m, of the middle features.
            text_width: e, of the prompt's vector.
            num_steps: N, of the base schedule.
        """
        self.layout: Layout = latent_layout(
            middle_width=middle_width,
            text_width=text_width,
            timestep_width=section.timestep_width,
            setting=section.setting,
            previews=bool(section.previews),
        )
        self._num_steps, self._timestep_width = num_steps, section.timestep_width
        self._norm = math.sqrt(section.timestep_width / 2)

    def rows(
        self,
        infos: Sequence[SlotInfo],
        *,
        middle: NDArray[np.float32],
        convergence: Sequence[list[float]],
        text: NDArray[np.float32],
        prices: Sequence[float],
        previews: Sequence[Sequence[float]] = (),
    ) -> NDArray[np.float32]:
        """(n, p) phi of some decisions, none of which depends on the others.

        Args:
            infos: where each slot stands.
            middle: (n, m) middle features of the slots' rows.
            convergence: (n, 4) of the slots' rows, in the order of CONVERGENCE_NAMES.
            text: (n, e) vectors of the prompts, each by ``scaled``.
            prices: of one NFE in each episode.
            previews: (n, 5) in the order of PREVIEW_NAMES, where the policy sees previews.

        Raises:
            ContractError: features are not as wide as the layout says.
        """
        width, names = self._timestep_width, self.layout.names
        parts: dict[str, ArrayLike] = {
            "middle": self.scaled(middle),
            "text": text,
            "timestep": [sinusoid(info.timestep, width) for info in infos],
            "convergence": convergence,
            "setting": [setting_of(info) for info in infos] if "setting" in names else (),
            "preview": previews,
            "progress": [
                progress(info, num_steps=self._num_steps, c_nfe=price)
                for info, price in zip(infos, prices, strict=True)
            ],
        }
        return self.layout.joined(parts, mismatch="the backbone in use is not the one")

    def scaled(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors (n, width) of some features at the norm of the timestep's."""
        lengths = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1, keepdims=True) + _TINY)
        return vectors * (self._norm / lengths).astype(np.float32)


def prompt_vector(embedding: PromptEmbedding) -> NDArray[np.float32]:
    """(e,) one vector of a prompt: the encoder's pooled one, or else the mean over its words, zero without words."""
    if embedding.pooled is not None:
        return embedding.pooled.float().numpy()
    words = embedding.hidden[embedding.keep]
    return (words.float().sum(0) / max(len(words), 1)).numpy()


def movement(
    now: Float[Tensor, "slot c h w"], before: Float[Tensor, "slot c h w"], into: Float[Tensor, "slot 6 pixel"]
) -> Float[Tensor, "slot 6"]:
    """Means of now², before², their difference², their product, now and |now|.

    What a device has to do for ``convergence``, in few operations and without memory of its own: after a pass each
    finds its code, and each new tensor its place, out of the caches. None mixes slots, as a matrix product might.
    """
    now, before = now.flatten(1), before.flatten(1)
    square, square_before, change, product, same, size = into.unbind(1)
    torch.mul(now, now, out=square)
    torch.mul(before, before, out=square_before)
    torch.sub(now, before, out=change).square_()
    torch.mul(now, before, out=product)
    same.copy_(now)
    torch.abs(now, out=size)
    return into.mean(2)


class Convergence:
    """How clean predictions differ from those of the decision before."""

    def __init__(self) -> None:
        self._into = torch.empty(0)

    def __call__(self, now: Float[Tensor, "slot c h w"], before: Float[Tensor, "slot c h w"]) -> list[list[float]]:
        """(n, 4) in the order of CONVERGENCE_NAMES.

        Logarithm (base 10) of the relative change, cosine similarity, standard deviation, mean magnitude. In plain
        numbers: for as few as there are slots, numpy takes longer.
        """
        count, size = len(now), now[0].numel()
        if self._into.shape != (count, 6, size) or self._into.device != now.device:
            self._into = torch.empty(count, 6, size, device=now.device)
        moved = movement(now, before, self._into).cpu().numpy()
        return [_statistics(means, correction=size / max(size - 1, 1)) for means in moved.tolist()]


def _statistics(means: list[float], *, correction: float) -> list[float]:
    """The same of one slot."""
    now, before, change, product, mean, magnitude = means
    relative = math.sqrt(change / max(now, _TINY))
    cosine = product / max(math.sqrt(now * before), _TINY)
    deviation = math.sqrt(max(now - mean * mean, 0.0) * correction)
    return [math.log10(max(relative, _LEAST_CHANGE)), cosine, deviation, magnitude]
