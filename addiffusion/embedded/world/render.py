"""Scenes to pixels: anti-aliased signed distance fields over a textured background."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray

from addiffusion.embedded.world.scenes import BACKGROUNDS, COLORS, IMAGE_SIZE, Placement, Scene

__all__ = ["IMAGE_SIZE", "alternate_tone", "distance", "render", "texture_weight"]

STRIPE_PERIOD = 10.67
"""Pixels from stripe to stripe."""
CHECKER_SIDE = 16.0
"""Side of one field of the checkered texture in pixels."""
BACKGROUND_JITTER = 3.0
"""Standard deviation of a background's colour around its name's, per channel in levels of 255."""
OBJECT_JITTER = 8.0
"""Standard deviation of an object's colour around its name's, per channel in levels of 255."""

_STAR_HALF_ANGLE = np.pi / 5
_CENTERS = np.arange(IMAGE_SIZE, dtype=np.float32) + 0.5
_MARGIN = 2

Field = NDArray[np.floating[Any]]


def render(scenes: Sequence[Scene], rng: random.Random) -> UInt8[np.ndarray, "n 64 64 3"]:
    """Draw every scene; colours are jittered from ``rng``, image by image."""
    images = np.empty((len(scenes), IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    noise = np.random.default_rng(rng.getrandbits(64))
    for image, scene in zip(images, scenes, strict=True):
        image[...] = _draw(scene, noise)
    return images


def _draw(scene: Scene, noise: np.random.Generator) -> UInt8[np.ndarray, "64 64 3"]:
    tone = _jitter(BACKGROUNDS[scene.background], BACKGROUND_JITTER, noise)
    weight = texture_weight(scene.texture, scene.axis, scene.phase)[..., None]
    canvas = tone + weight * (alternate_tone(tone) - tone)
    for placement in scene.placements:
        group = scene.groups[placement.group]
        _paint(canvas, group.shape, placement, _jitter(COLORS[group.color], OBJECT_JITTER, noise))
    return np.rint(canvas.clip(0, 255)).astype(np.uint8)


def _jitter(color: tuple[int, int, int], deviation: float, noise: np.random.Generator) -> Float32[np.ndarray, " 3"]:
    return np.asarray(color, np.float32) + noise.standard_normal(3, np.float32) * np.float32(deviation)


def _paint(canvas: Field, shape: str, placement: Placement, color: Field) -> None:
    """Blend one object into ``canvas`` in place; only the window it can touch is computed."""
    reach = 1.25 * placement.radius + _MARGIN
    rows, columns = _span(placement.y, reach), _span(placement.x, reach)
    x, y = _CENTERS[None, columns] - placement.x, _CENTERS[rows, None] - placement.y
    cover = (0.5 - distance(shape, x, y, placement.radius)).clip(0, 1)[..., None]
    window = canvas[rows, columns]
    window += cover * (color - window)


def _span(center: float, reach: float) -> slice:
    return slice(max(0, int(center - reach)), min(IMAGE_SIZE, int(center + reach) + 1))


def alternate_tone(tone: Float32[np.ndarray, " 3"]) -> Float32[np.ndarray, " 3"]:
    """The second tone of a texture: darker on light backgrounds, lighter and paler on dark ones."""
    return tone * np.float32(0.78) if tone.mean() > 150 else tone * np.float32(0.6) + np.float32(37.2)


def texture_weight(texture: str, axis: int, phase: float) -> Float32[np.ndarray, "64 64"]:
    """Share of the alternate tone in every pixel, in [0, 1]."""
    along = np.broadcast_to(_CENTERS[None, :] if axis == 0 else _CENTERS[:, None], (IMAGE_SIZE, IMAGE_SIZE))
    if texture == "striped":
        return (np.sin((along / STRIPE_PERIOD + phase) * 2 * np.pi) * 3 + 0.5).clip(0, 1).astype(np.float32)
    if texture == "checkered":
        wave = np.sin((_CENTERS + 0.01) / CHECKER_SIDE * np.pi)
        return (wave[:, None] * wave[None, :] * 6 + 0.5).clip(0, 1).astype(np.float32)
    if texture == "gradient":
        rising = along / IMAGE_SIZE
        return (rising if phase < 0.5 else 1 - rising).astype(np.float32)
    return np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.float32)


def distance(shape: str, x: Field, y: Field, radius: float) -> Field:
    """Signed distance in pixels (negative inside) to a shape centred at the origin.

    Args:
        shape: its name.
        x: pixels to the right; broadcasts with ``y``.
        y: pixels downwards.
        radius: pixels.
    """
    return _DISTANCES[shape](x, y, radius)


def _circle(x: Field, y: Field, radius: float) -> Field:
    return np.sqrt(x * x + y * y) - radius


def _square(x: Field, y: Field, radius: float) -> Field:
    return np.maximum(abs(x), abs(y)) - 0.86 * radius


def _triangle(x: Field, y: Field, radius: float) -> Field:
    return np.maximum(y - 0.72 * radius, abs(x) * 0.8746 - y * 0.4848 - 0.485 * radius)


def _ring(x: Field, y: Field, radius: float) -> Field:
    return abs(np.sqrt(x * x + y * y) - 0.74 * radius) - 0.26 * radius


def _star(x: Field, y: Field, radius: float) -> Field:
    """Five points: fold the plane into one half point, then take the distance to its single edge."""
    half = _STAR_HALF_ANGLE
    angle = np.mod(np.arctan2(x, -y) + half, 2 * half) - half
    rho = np.sqrt(x * x + y * y)
    outer, inner = 1.08 * radius, 0.46 * radius
    edge_x, edge_y = inner * np.cos(half) - outer, inner * np.sin(half)
    across = (rho * np.cos(angle) - outer) * edge_y - abs(rho * np.sin(angle)) * edge_x
    return across / np.hypot(edge_x, edge_y)


_DISTANCES: MappingProxyType[str, Callable[[Field, Field, float], Field]] = MappingProxyType(
    {"circle": _circle, "square": _square, "triangle": _triangle, "star": _star, "ring": _ring}
)
