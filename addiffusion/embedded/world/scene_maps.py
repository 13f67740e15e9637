"""Which shape and colour lies where in a scene, on the grid of the latents.

The denoiser's training asks for these maps besides the velocity. What a shape is moves few pixels, so the squared
error alone teaches it last; told where a star is, the network learns it sooner. The idea is that of
representation alignment (arXiv:2410.06940), with the scene itself in the place of a pretrained encoder.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

import numpy as np
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (the name everyone knows it by)

from addiffusion.embedded.world.render import distance
from addiffusion.embedded.world.scenes import COLORS, IMAGE_SIZE, SHAPES, Scene

GRID: Final = 16
"""Cells per side; the latents have as many."""
LEAST_COVER: Final = 0.3
"""Share of a cell that an object must cover to own it."""

_CELL: Final = IMAGE_SIZE // GRID
_CENTERS: Final = np.arange(IMAGE_SIZE, dtype=np.float32) + 0.5
_CLASSES: Final = (len(SHAPES) + 1, len(COLORS) + 1)
_COLOR_NAMES: Final = tuple(COLORS)


def scene_maps(scenes: Sequence[Scene]) -> UInt8[np.ndarray, "n 2 16 16"]:
    """Shape and colour of the object that owns each cell, counted from 1; 0 is background."""
    return np.stack([_map(scene) for scene in scenes])


def _map(scene: Scene) -> UInt8[np.ndarray, "2 16 16"]:
    owned = np.zeros((2, GRID, GRID), np.uint8)
    most = np.full((GRID, GRID), LEAST_COVER, np.float32)
    for placement in scene.placements:
        group = scene.groups[placement.group]
        x, y = _CENTERS[None, :] - placement.x, _CENTERS[:, None] - placement.y
        inside = distance(group.shape, x, y, placement.radius) < 0
        cover = inside.reshape(GRID, _CELL, GRID, _CELL).mean(axis=(1, 3))
        owner = cover >= most
        most[owner] = cover[owner]
        owned[:, owner] = [[SHAPES.index(group.shape) + 1], [_COLOR_NAMES.index(group.color) + 1]]
    return owned


class MapReader(nn.Module):
    """Reads the maps off the features that enter the UNet's last up block; used in training alone."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        channels = unet.config["block_out_channels"][1]
        self.head = nn.Conv2d(channels, sum(_CLASSES), kernel_size=1)
        self._seen = threading.local()  # the shards of a step run side by side
        unet.up_blocks[-1].register_forward_pre_hook(self._keep, with_kwargs=True)

    def _keep(self, _: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        self._seen.features = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]

    def loss(self, maps: Int64[Tensor, "n 2 16 16"]) -> Float[Tensor, ""]:
        """Cross-entropy against the features of this thread's last pass; every cell counts the same."""
        shape, color = self.head(self._seen.features).split(_CLASSES, dim=1)
        return F.cross_entropy(shape, maps[:, 0]) + F.cross_entropy(color, maps[:, 1])
