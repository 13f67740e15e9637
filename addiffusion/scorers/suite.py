"""All scorers of one process behind the Scoring port."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from addiffusion.config import ScorersSection
from addiffusion.devices import resolve_device
from addiffusion.embedded.pixels import to_network
from addiffusion.embedded.scenes import IMAGE_SIZE
from addiffusion.errors import ContractError, PromptError
from addiffusion.records import METRIC_NAMES, SCORE_NAMES, ScoreReply, ScoreRequest
from addiffusion.scorers.aesthetic import AestheticScorer
from addiffusion.scorers.clip import ClipScorer, cosine
from addiffusion.scorers.dino import DinoScorer
from addiffusion.scorers.preference import PreferenceScorer
from addiffusion.scorers.scene import SceneScorer

KNOWN_NAMES: Final = (*SCORE_NAMES, *METRIC_NAMES)
"""Every column a request may ask for."""
_CACHED_PROMPTS: Final = 4096

Column = NDArray[np.float32]


def load_suite(section: ScorersSection) -> ScorerSuite:
    """The scorers that ship with the package.

    Raises:
        WeightsError: their weights are missing or do not fit.
    """
    device = resolve_device(section.device, key="scorers.device")
    clip = ClipScorer(device)
    return ScorerSuite(
        clip=clip,
        aesthetic=AestheticScorer(device, clip_width=clip.width),
        dino=DinoScorer(device),
        preference=PreferenceScorer(device),
        device=device,
        batch_images=section.batch_images,
    )


class ScorerSuite:
    """Scores in this process: one CLIP forward serves embedding, CLIP score and aesthetic.

    Every network sees batches of exactly ``batch_images`` rows (short ones are padded with a repeated row), so on
    a CPU each row is bitwise independent of its neighbours and of the size of the request.
    """

    def __init__(
        self,
        *,
        clip: ClipScorer,
        aesthetic: AestheticScorer,
        dino: DinoScorer,
        preference: PreferenceScorer,
        device: torch.device,
        batch_images: int,
    ) -> None:
        self.clip = clip
        self._aesthetic, self._dino, self._preference = aesthetic, dino, preference
        self._scene = SceneScorer()
        self._device = device
        self._batch_images = batch_images
        self._texts = _TextCache(clip)

    @property
    def clip_width(self) -> int:
        """Width ``e`` of CLIP embeddings."""
        return self.clip.width

    @property
    def dino_width(self) -> int:
        """Width ``f`` of DINO features."""
        return self._dino.width

    def embed_text(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """(n, e) L2-normalised CLIP text embeddings; each prompt is computed once and remembered."""
        rows = [self._texts.embedding(prompt).cpu().numpy() for prompt in prompts]
        return np.stack(rows) if rows else np.zeros((0, self.clip_width), np.float32)

    def score(self, request: ScoreRequest) -> ScoreReply:
        """Scores, embeddings and per-item errors in the order of the request's images.

        Raises:
            ContractError: images are not (n, 64, 64, 3) uint8, counts differ, or a score name is unknown.
        """
        _check(request)
        size = self._batch_images
        cuts = range(0, len(request.images), size)
        batches = [
            self._score_batch(request.images[at : at + size], request.prompts[at : at + size], request.names)
            for at in cuts
        ]
        return _join(batches, request.names, self.clip_width, self.dino_width)

    def _score_batch(
        self, images: UInt8[np.ndarray, "n h w 3"], prompts: tuple[str, ...], names: Sequence[str]
    ) -> ScoreReply:
        count = len(images)
        rows = np.minimum(np.arange(self._batch_images), count - 1)
        x = to_network(images[rows]).to(self._device)
        padded = tuple(prompts[row] for row in rows)
        embedding = self.clip.embed_images(x)
        features = self._dino.embed_images(x)
        columns = self._columns(x, embedding, padded, names)
        columns = {name: column.float().cpu().numpy()[:count] for name, column in columns.items()}
        errors: list[str | None] = [None] * count
        if set(names) & set(METRIC_NAMES):
            columns.update(self._judge(images, prompts, errors))
        return _guarded(
            names=tuple(names),
            values=_stack([columns[name] for name in names], count),
            clip_embedding=embedding.float().cpu().numpy()[:count],
            dino_embedding=features.float().cpu().numpy()[:count],
            errors=errors,
        )

    def _columns(
        self, x: Float[Tensor, "n 3 h w"], embedding: Float[Tensor, "n e"], prompts: Sequence[str], names: Sequence[str]
    ) -> dict[str, Tensor]:
        """The network scores among ``names``."""
        columns: dict[str, Tensor] = {}
        if "clip" in names:
            texts = torch.stack([self._texts.embedding(prompt) for prompt in prompts])
            columns["clip"] = cosine(embedding, texts)
        if "aesthetic" in names:
            columns["aesthetic"] = self._aesthetic.score(embedding)
        if "image_reward" in names:
            ids = torch.stack([self._texts.token_ids(prompt) for prompt in prompts]).to(self._device)
            columns["image_reward"] = self._preference.score(x, ids)
        return columns

    def _judge(
        self, images: UInt8[np.ndarray, "n h w 3"], prompts: Sequence[str], errors: list[str | None]
    ) -> dict[str, Column]:
        """The exact metrics; a prompt the checker can't read is an error of its item, noted in ``errors``."""
        columns = {name: np.full(len(images), np.nan, np.float32) for name in METRIC_NAMES}
        for row, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
            try:
                requirement = self._scene.requirement(prompt)
            except PromptError as error:
                errors[row] = error.message
                continue
            for name, value in self._scene.score(image, requirement).items():
                columns[name][row] = value
        return columns


class _TextCache:
    """Token ids and embeddings by prompt, the least recently used forgotten first."""

    def __init__(self, clip: ClipScorer) -> None:
        self._clip = clip
        self._known: OrderedDict[str, tuple[Int[Tensor, " l"], Float[Tensor, " e"]]] = OrderedDict()

    def token_ids(self, prompt: str) -> Int[Tensor, " l"]:
        return self._entry(prompt)[0]

    def embedding(self, prompt: str) -> Float[Tensor, " e"]:
        return self._entry(prompt)[1]

    def _entry(self, prompt: str) -> tuple[Int[Tensor, " l"], Float[Tensor, " e"]]:
        if prompt not in self._known:
            self._known[prompt] = (self._clip.tokenize([prompt])[0], self._clip.embed_texts([prompt])[0])
            if len(self._known) > _CACHED_PROMPTS:
                self._known.popitem(last=False)
        self._known.move_to_end(prompt)
        return self._known[prompt]


def _check(request: ScoreRequest) -> None:
    shape = request.images.shape
    if request.images.dtype != np.uint8 or len(shape) != 4 or shape[1:] != (IMAGE_SIZE, IMAGE_SIZE, 3):
        raise ContractError(
            f"ScoreRequest.images is {request.images.dtype} of shape {shape}; the embedded scorers take uint8 images "
            f"of shape (n, {IMAGE_SIZE}, {IMAGE_SIZE}, 3).",
            shape=shape,
        )
    if len(request.prompts) != shape[0]:
        raise ContractError(
            f"ScoreRequest has {shape[0]} images but {len(request.prompts)} prompts; give one prompt per image.",
            images=shape[0],
            prompts=len(request.prompts),
        )
    unknown = [name for name in request.names if name not in KNOWN_NAMES]
    if unknown:
        raise ContractError(
            f"ScoreRequest.names asks for {unknown}; the embedded scorers know {list(KNOWN_NAMES)}.", unknown=unknown
        )


def _stack(columns: Sequence[Column], count: int) -> NDArray[np.float32]:
    return np.stack(columns, axis=1) if columns else np.zeros((count, 0), np.float32)


def _guarded(
    *,
    names: tuple[str, ...],
    values: NDArray[np.float32],
    clip_embedding: NDArray[np.float32],
    dino_embedding: NDArray[np.float32],
    errors: list[str | None],
) -> ScoreReply:
    """A reply in which every row with a non-finite number, or an error, is NaN and says why."""
    numbers = np.concatenate((values, clip_embedding, dino_embedding), axis=1)
    for row in np.flatnonzero(~np.isfinite(numbers).all(axis=1)):
        if errors[row] is None:
            errors[row] = f"A scorer returned NaN or infinity for this image ({', '.join(names)}); it has no score."
    for row, error in enumerate(errors):
        if error is not None:
            values[row] = np.nan
    return ScoreReply(
        names=names,
        values=values,
        clip_embedding=clip_embedding,
        dino_embedding=dino_embedding,
        errors=tuple(errors),
    )


def _join(batches: Sequence[ScoreReply], names: tuple[str, ...], clip_width: int, dino_width: int) -> ScoreReply:
    """One reply from the replies of consecutive batches; none make an empty one."""

    def rows(parts: list[NDArray[np.float32]], width: int) -> NDArray[np.float32]:
        return np.concatenate([np.zeros((0, width), np.float32), *parts])

    return ScoreReply(
        names=names,
        values=rows([batch.values for batch in batches], len(names)),
        clip_embedding=rows([batch.clip_embedding for batch in batches], clip_width),
        dino_embedding=rows([batch.dino_embedding for batch in batches], dino_width),
        errors=tuple(error for batch in batches for error in batch.errors),
    )
