"""A small, real torch scorer at a fixed padded batch shape, as the suite is; and ways to slow it down or break it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from addiffusion.config import ScorersSection
from addiffusion.errors import ScorerError, WeightsError
from addiffusion.records import SCORE_NAMES, ScoreReply, ScoreRequest
from addiffusion.scorers.base import ScorerUsage
from addiffusion.seeds import derive_seed, generator

CLIP_WIDTH, DINO_WIDTH = 12, 6
POISON = 255
"""An image of nothing but this value can't be scored."""


class ToyScoring:
    """Strided convolution and a linear head per output; rows are independent because the batch shape never changes."""

    def __init__(self, section: ScorersSection | None = None, *, delay_s: float = 0.0) -> None:
        self.batch_images = (section or ScorersSection()).batch_images
        self.delay_s = delay_s
        self.batch_sizes: list[int] = []
        self.conv = nn.Conv2d(3, 16, 4, stride=4)
        self.head = nn.Linear(16, CLIP_WIDTH + DINO_WIDTH + len(SCORE_NAMES))
        with torch.no_grad():
            for index, parameter in enumerate(nn.ModuleList([self.conv, self.head]).parameters()):
                parameter.normal_(0.0, 0.3, generator=generator("toy-scoring", index))

    @property
    def names(self) -> tuple[str, ...]:
        return SCORE_NAMES

    @property
    def clip_width(self) -> int:
        return CLIP_WIDTH

    @property
    def dino_width(self) -> int:
        return DINO_WIDTH

    def embed_text(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        rows = [torch.randn(CLIP_WIDTH, generator=generator(prompt, "text")) for prompt in prompts]
        return nn.functional.normalize(torch.stack(rows), dim=1).numpy()

    def score(self, request: ScoreRequest) -> ScoreReply:
        count = len(request.images)
        assert count <= self.batch_images
        self.batch_sizes.append(count)
        time.sleep(self.delay_s)
        if "explode" in request.names:
            raise ScorerError("The scorer exploded as it was asked to.", names=request.names)
        padded = np.zeros((self.batch_images, *request.images.shape[1:]), np.uint8)
        padded[:count] = request.images
        clip, dino, scores = self._forward(torch.from_numpy(padded)).split(
            [CLIP_WIDTH, DINO_WIDTH, len(SCORE_NAMES)], dim=1
        )
        shift = np.array([derive_seed(prompt) % 1000 / 1000 for prompt in request.prompts], np.float32)
        columns = [SCORE_NAMES.index(name) for name in request.names]
        values = scores.numpy()[:count, columns] + shift[:, None]
        broken = (request.images == POISON).all(axis=(1, 2, 3))
        values[broken] = np.nan
        return ScoreReply(
            names=request.names,
            values=values,
            clip_embedding=nn.functional.normalize(clip, dim=1).numpy()[:count],
            dino_embedding=nn.functional.normalize(dino, dim=1).numpy()[:count],
            errors=tuple("The image is blank." if bad else None for bad in broken),
        )

    @torch.inference_mode()
    def _forward(self, images: Tensor) -> Tensor:
        pixels = images.permute(0, 3, 1, 2).float() / 255
        return self.head(self.conv(pixels).relu().mean(dim=(2, 3)))


class HangingScoring(ToyScoring):
    """Its first pass hangs until it is released."""

    def __init__(self, section: ScorersSection | None = None) -> None:
        super().__init__(section)
        self.began, self.release = threading.Event(), threading.Event()

    def usage(self) -> ScorerUsage:
        return ScorerUsage(running="slowpoke")

    def score(self, request: ScoreRequest) -> ScoreReply:
        if not self.began.is_set():
            self.began.set()
            self.release.wait()
        return super().score(request)


class LostScoring(ToyScoring):
    """Its device is lost at the first call, as CUDA reports it."""

    def score(self, request: ScoreRequest) -> ScoreReply:
        raise RuntimeError("CUDA error: device-side assert triggered\nCompile with TORCH_USE_CUDA_DSA.")

    def embed_text(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        raise RuntimeError("CUDA error: device-side assert triggered\nCompile with TORCH_USE_CUDA_DSA.")


class OnceLostScoring(ToyScoring):
    """Loses its device at its first request, and only in the first process: a file says so."""

    def __init__(self, section: ScorersSection, marker: Path) -> None:
        super().__init__(section)
        self.marker = marker

    def score(self, request: ScoreRequest) -> ScoreReply:
        if not self.marker.exists():
            self.marker.touch()
            return LostScoring().score(request)
        return super().score(request)


def load_lost_toy(section: ScorersSection) -> ToyScoring:
    return LostScoring(section)


def load_slow_toy(section: ScorersSection) -> ToyScoring:
    return ToyScoring(section, delay_s=0.05)


def load_missing_weights(section: ScorersSection) -> ToyScoring:
    raise WeightsError("The toy has no weights.", kind=section.kind)


def make_request(seed: int, count: int, *, names: tuple[str, ...] = SCORE_NAMES, size: int = 16) -> ScoreRequest:
    images = torch.randint(0, 250, (count, size, size, 3), generator=generator(seed, "images"), dtype=torch.uint8)
    prompts = tuple(f"prompt {seed} {row}" for row in range(count))
    return ScoreRequest(images=images.numpy(), prompts=prompts, names=names)


def assert_same_reply(left: ScoreReply, right: ScoreReply) -> None:
    assert left.names == right.names
    assert left.errors == right.errors
    np.testing.assert_array_equal(left.values, right.values)
    np.testing.assert_array_equal(left.clip_embedding, right.clip_embedding)
    np.testing.assert_array_equal(left.dino_embedding, right.dino_embedding)
