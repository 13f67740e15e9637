"""Scene maps against renders, and the reader that learns them off a UNet's features."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from addiffusion.embedded.models.denoiser import build_unet
from addiffusion.embedded.world.data import scene_batch
from addiffusion.embedded.world.render import render
from addiffusion.embedded.world.scene_maps import GRID, MapReader, scene_maps
from addiffusion.embedded.world.scenes import COLORS, SHAPES, Group, Placement, Scene


def scene(*placed: tuple[str, str, float, float, float]) -> Scene:
    groups = tuple(Group(count=1, size="medium", color=color, shape=shape) for color, shape, *_ in placed)
    placements = tuple(
        Placement(group=index, x=x, y=y, radius=radius) for index, (_, _, x, y, radius) in enumerate(placed)
    )
    return Scene(
        tier=3,
        groups=groups,
        relation=None,
        position=None,
        placements=placements,
        texture="plain",
        background="white",
        axis=0,
        phase=0.0,
    )


def test_a_square_owns_the_cells_it_covers() -> None:
    # 0.86 x 10 pixels to each side of (32, 32): from 23.4 to 40.6, which is cells 6 to 9 and a sixth of 5 and 10
    shape, color = scene_maps([scene(("blue", "square", 32.0, 32.0, 10.0))])[0]
    inside = np.zeros((GRID, GRID), bool)
    inside[6:10, 6:10] = True
    assert (shape[inside] == SHAPES.index("square") + 1).all()
    assert (color[inside] == tuple(COLORS).index("blue") + 1).all()
    assert not shape[~inside].any()
    assert not color[~inside].any()


def test_a_ring_leaves_its_hole_to_the_background() -> None:
    shape, _ = scene_maps([scene(("red", "ring", 32.0, 32.0, 14.0))])[0]
    assert shape[7:9, 7:9].sum() == 0
    assert (shape == SHAPES.index("ring") + 1).sum() > 20


def test_maps_follow_the_pixels_of_renders() -> None:
    scenes = scene_batch(5, 0, 30, tier=3).scenes
    images = render(scenes, random.Random(1)).astype(np.float32)
    palette = np.array(list(COLORS.values()), np.float32)
    cells = images.reshape(len(scenes), GRID, 4, GRID, 4, 3).mean(axis=(2, 4))
    maps = scene_maps(scenes)
    # a cell that is all one object has that object's colour
    core = (maps[:, 1] > 0) & (np.abs(cells[..., None, :] - palette).sum(-1).min(-1) < 30)
    nearest = np.abs(cells[..., None, :] - palette).sum(-1).argmin(-1) + 1
    assert core.sum() > 100
    assert (nearest[core] == maps[:, 1][core]).mean() > 0.99


def test_the_reader_sees_the_pass_of_its_own_thread() -> None:
    torch.manual_seed(0)
    unet = build_unet().eval()
    reader = MapReader(unet)
    maps = torch.zeros(2, 2, GRID, GRID, dtype=torch.long)
    inputs = [torch.randn(2, 8, 16, 16) for _ in range(4)]
    hidden = torch.zeros(2, 24, 96)

    @torch.no_grad()
    def alone(z: torch.Tensor) -> float:
        unet(z, torch.tensor([10, 900]), encoder_hidden_states=hidden)
        return float(reader.loss(maps))

    one_by_one = [alone(z) for z in inputs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(alone, inputs))
    assert together == one_by_one
    assert len(set(one_by_one)) == len(inputs)


def test_the_reader_learns_a_map_from_one_pass() -> None:
    torch.manual_seed(0)
    unet = build_unet().eval()
    reader = MapReader(unet)
    maps = torch.from_numpy(scene_maps(scene_batch(3, 0, 2, tier=1).scenes)).long()
    with torch.no_grad():
        unet(torch.randn(2, 8, 16, 16), torch.tensor([10, 10]), encoder_hidden_states=torch.zeros(2, 24, 96))
    before = reader.loss(maps)
    optimizer = torch.optim.Adam(reader.head.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        reader.loss(maps).backward()
        optimizer.step()
    assert reader.loss(maps) < before / 2
