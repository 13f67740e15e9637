"""Named slices of the observation vector. Widths follow the models in use, so nobody else may know an offset."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from addiffusion.errors import ContractError

PROGRESS_NAMES = ("step_ratio", "nfe_ratio", "log_price", "attention_entropy")
"""Components that every observation has, in order."""
QUALITY_NAMES = ("clip", "aesthetic_delta", "image_reward_delta", "dino_similarity", *PROGRESS_NAMES)
"""Components of the ``quality`` slice, in order."""
SETTING_NAMES = ("guidance_scale", "log_steps", "solver_memory", "cost_left")
"""Components of the ``setting`` slice, in order."""
PREVIEW_NAMES = ("seen", "clip", "aesthetic", "image_reward", "age")
"""Components of the ``preview`` slice, in order."""
PREVIEW_CLIP = PREVIEW_NAMES.index("clip") - len(PREVIEW_NAMES) - len(PROGRESS_NAMES)
"""Where the CLIP score of the preview lies in phi, from its end."""
_ALIGNED = 4
"""Numbers that a row's width is rounded up to in memory: of 16 bytes."""
CONVERGENCE_NAMES = ("log_change", "cosine", "std", "magnitude")
"""Components of the ``convergence`` slice, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """An ordered set of named, adjacent slices of one vector."""

    names: tuple[str, ...]
    widths: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.widths) or len(set(self.names)) != len(self.names) or min(self.widths) < 1:
            raise ContractError(
                f"Layout needs as many positive widths as distinct names, not names={self.names} widths={self.widths}.",
                names=self.names,
                widths=self.widths,
            )

    @property
    def width(self) -> int:
        """Width ``p`` of the whole vector."""
        return sum(self.widths)

    def slice(self, name: str) -> builtins.slice:
        """Where ``name`` lies in the vector.

        Raises:
            ContractError: the layout has no such slice.
        """
        found = _slices(self.names, self.widths).get(name)
        if found is None:
            raise ContractError(f"This observation has no slice {name!r}; it has {self}.", name=name, names=self.names)
        return found

    @property
    def price_column(self) -> int:
        """Where the logarithm of the price lies: progress ends every observation."""
        return self.width - len(PROGRESS_NAMES) + PROGRESS_NAMES.index("log_price")

    def blank(self, count: int) -> NDArray[np.float32]:
        """(count, p) zeros.

        Each row begins as the first one lies in its register: a policy's answer to two or three rows would depend on
        it in its last bits, and so on an episode's slot.
        """
        return np.zeros((count, -(-self.width // _ALIGNED) * _ALIGNED), np.float32)[:, : self.width]

    def joined(self, parts: Mapping[str, ArrayLike], *, mismatch: str) -> NDArray[np.float32]:
        """Observations (..., p) of one decision or of several.

        Args:
            parts: values of every slice, each (..., its width).
            mismatch: says what is wrong when some are not as wide.

        Raises:
            ContractError: some are not.
        """
        arrays = [np.asarray(parts[name], np.float32) for name in self.names]
        for name, width, values in zip(self.names, self.widths, arrays, strict=True):
            if values.shape[-1] != width:
                raise ContractError(
                    f"Slice {name!r} of the observation is {width} wide but was given shape {values.shape}: "
                    f"{mismatch} the layout was made for.",
                    name=name,
                    shape=values.shape,
                    layout=str(self),
                )
        return np.concatenate(arrays, axis=-1)

    def __str__(self) -> str:
        """E.g. ``clip_image 768 | clip_text 768 | timestep 128 | quality 8 = 1672``."""
        slices = " | ".join(f"{name} {width}" for name, width in zip(self.names, self.widths, strict=True))
        return f"{slices} = {self.width}"


@lru_cache(maxsize=64)
def _slices(names: tuple[str, ...], widths: tuple[int, ...]) -> Mapping[str, slice]:
    """Where each name lies: asked for each part of each decision, so known layouts are computed once."""
    bounds = pairwise(accumulate(widths, initial=0))
    return {name: slice(*ends) for name, ends in zip(names, bounds, strict=True)}


def clip_layout(*, clip_width: int, timestep_width: int, setting: bool = False) -> Layout:
    """Layout of the ``clip`` observation for CLIP embeddings of ``clip_width``, with ``setting`` or not."""
    slices = {"clip_image": clip_width, "clip_text": clip_width, "timestep": timestep_width}
    return _layout(slices, {"quality": len(QUALITY_NAMES)}, setting=setting)


def latent_layout(
    *, middle_width: int, text_width: int, timestep_width: int, setting: bool = False, previews: bool = False
) -> Layout:
    """Layout of the ``latent`` observation.

    Args:
        middle_width: of the backbone's middle features.
        text_width: of the vector of a prompt.
        timestep_width: of the timestep slice.
        setting: whether it has the slice of that name.
        previews: whether it has the slice ``preview``.
    """
    slices = {"middle": middle_width, "text": text_width, "timestep": timestep_width}
    slices["convergence"] = len(CONVERGENCE_NAMES)
    last = {**({"preview": len(PREVIEW_NAMES)} if previews else {}), "progress": len(PROGRESS_NAMES)}
    return _layout(slices, last, setting=setting)


def _layout(first: Mapping[str, int], last: Mapping[str, int], *, setting: bool) -> Layout:
    """Slices by name and width, with the setting's before the last, if at all."""
    slices = {**first, **({"setting": len(SETTING_NAMES)} if setting else {}), **last}
    return Layout(names=tuple(slices), widths=tuple(slices.values()))
