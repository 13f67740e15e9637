"""What is in an image: its background tone and texture, and the coloured shapes on it.

Every pixel is read as a blend of the local background and one object colour, which is exactly how a scene is
rendered. Soft edges (anti-aliasing, an autoencoder's blur) then are partial coverage instead of other colours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, UInt8
from numpy.typing import NDArray
from scipy import ndimage  # pyright: ignore[reportMissingTypeStubs] - it has none

from addiffusion.embedded.world.render import STRIPE_PERIOD, alternate_tone, distance, texture_weight
from addiffusion.embedded.world.scenes import BACKGROUNDS, COLORS, IMAGE_SIZE, SHAPES

TONE_TOLERANCE = 32.0
"""Distance in RGB up to which a pixel still is background: an object at half coverage is at least 43 away."""
COLOR_TOLERANCE = 75.0
"""Distance in RGB from the blend of background and object colour up to which a pixel is of that color."""
MIN_AREA = 20.0
"""Pixels of the smallest thing that counts as an object; the smallest drawn star has 50."""
MIN_FIT = 0.65
"""Overlap (intersection over union) below which an object has no recognised shape."""
MAX_OBJECTS = 16
"""More components than this are noise: the largest are looked at."""
MIN_TEXTURE_DEVIATION = 3.5
"""Standard deviation in RGB that a texture must explain; the faintest drawn gradient has 6."""

_SIDE = np.arange(IMAGE_SIZE, dtype=np.float32) + 0.5
_COLOR_NAMES = tuple(COLORS)
_PALETTE = np.array(list(COLORS.values()), np.float32)
_TONE_NAMES = tuple(BACKGROUNDS)
_BASES = np.array(list(BACKGROUNDS.values()), np.float32)
_STEPS = np.array([alternate_tone(base) - base for base in _BASES])
_CHECKERS = texture_weight("checkered", 0, 0.0)
_RAMP = texture_weight("gradient", 0, 0.0)[0]
_WAVES = np.stack([np.sin(2 * np.pi * _SIDE / STRIPE_PERIOD), np.cos(2 * np.pi * _SIDE / STRIPE_PERIOD)])

Field = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenObject:
    """One connected patch of one object colour."""

    color: str
    shape: str | None
    """None when no shape fits well enough."""
    x: float
    y: float
    radius: float
    """Radius at which the best fitting shape covers the patch's area."""
    fit: float
    """Intersection over union with the best fitting shape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenBackground:
    """The background that explains most of the image."""

    name: str
    texture: str
    share: float
    """Share of the pixels outside all objects that have one of the background's tones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Everything recognised in one image."""

    background: SeenBackground
    objects: tuple[SeenObject, ...]


def segment(image: UInt8[np.ndarray, "64 64 3"]) -> Seen:
    """Recognise background and objects of any image; nonsense gives nonsense, never an error."""
    pixels = image.astype(np.float32)
    tone, place, offset = _find_tone(pixels)
    plausible = offset < TONE_TOLERANCE
    texture, weight = _find_texture(place, _inside(plausible), float(np.linalg.norm(_STEPS[tone])))
    canvas = _BASES[tone] + weight[..., None] * _STEPS[tone]
    if plausible.any():
        canvas = canvas + (pixels - canvas)[plausible].mean(axis=0)
    color, cover = _unmix(pixels, canvas)
    outside = cover == 0
    share = float(plausible[outside].mean()) if outside.any() else 0.0
    return Seen(
        background=SeenBackground(name=_TONE_NAMES[tone], texture=texture, share=share),
        objects=tuple(_find_objects(color, cover)),
    )


def _find_tone(pixels: Field) -> tuple[int, Field, Field]:
    """The background whose two tones and their blends are nearest to most pixels.

    Returns its index, and per pixel the share of its alternate tone and the distance to the blend.
    """
    coarse = pixels[::3, ::3].reshape(-1, 3)
    costs = [_along(coarse, tone)[1].clip(max=TONE_TOLERANCE).mean() for tone in range(len(_BASES))]
    best = int(np.argmin(costs))
    return best, *_along(pixels, best)


def _along(pixels: Field, tone: int) -> tuple[Field, Field]:
    """Position of each pixel on the line from base to alternate tone, and its distance to the segment."""
    step = _STEPS[tone]
    away = pixels - _BASES[tone]
    place = away @ step / (step @ step)
    return place, np.linalg.norm(away - place.clip(0, 1)[..., None] * step, axis=-1)


def _inside(mask: Mask) -> Mask:
    """Pixels of which the whole 3 x 3 neighbourhood is in ``mask``: free of the soft edges of objects."""
    return ~_grown(~mask)


def _find_texture(place: Field, mask: Mask, scale: float) -> tuple[str, Field]:
    """The texture that explains most of how ``place`` varies over ``mask``, and its fitted weight everywhere.

    Args:
        place: (64, 64) share of the alternate tone.
        mask: (64, 64) pixels that certainly are background.
        scale: distance in RGB between the two tones.
    """
    if mask.sum() < 64:
        return "plain", np.zeros_like(place)
    best, explained = "plain", MIN_TEXTURE_DEVIATION / scale
    weight = np.full_like(place, place[mask].mean())
    for name, pattern in _patterns(place, mask):
        fitted, deviation = _regress(place, pattern, mask)
        if deviation > explained:
            best, explained, weight = name, deviation, fitted
    return best, weight


def _patterns(place: Field, mask: Mask) -> Iterator[tuple[str, Field]]:
    shape = (IMAGE_SIZE, IMAGE_SIZE)
    yield "checkered", _CHECKERS
    for axis, ramp in enumerate((np.broadcast_to(_RAMP, shape), np.broadcast_to(_RAMP[:, None], shape))):
        yield "gradient", ramp
        yield "striped", texture_weight("striped", axis, _stripe_phase(place, mask, axis))


def _stripe_phase(place: Field, mask: Mask, axis: int) -> float:
    """Phase of the stripes' first harmonic, by weighted least squares on the means across the stripes."""
    count = mask.sum(axis=axis)
    total = (place * mask).sum(axis=axis)
    level = total - count * (total.sum() / count.sum())
    centered = _WAVES - (_WAVES @ count / count.sum())[:, None]
    gram = (centered * count) @ centered.T + 1e-6 * np.eye(2)
    linalg: Any = np.linalg  # its overloads give no type for these
    sine, cosine = linalg.solve(gram, centered @ level)
    return float(np.arctan2(cosine, sine) / (2 * np.pi)) % 1.0


def _regress(place: Field, pattern: Field, mask: Mask) -> tuple[Field, float]:
    """Least-squares fit of ``place`` by an affine function of ``pattern``; its values and standard deviation."""
    seen, wanted = pattern[mask], place[mask]
    middle = seen.mean()
    centered = seen - middle
    spread = float(centered @ centered)
    slope = float(centered @ wanted) / spread if spread > 1e-3 else 0.0
    return wanted.mean() + slope * (pattern - middle), abs(slope) * (spread / len(seen)) ** 0.5


def _unmix(pixels: Field, canvas: Field) -> tuple[Int[np.ndarray, "64 64"], Float32[np.ndarray, "64 64"]]:
    """Best object colour of every pixel and the share of the pixel that it covers (0 where there is none)."""
    color = np.zeros(pixels.shape[:2], np.int64)
    cover = np.zeros(pixels.shape[:2], np.float32)
    away = pixels - canvas
    touched = (away * away).sum(axis=-1) > 10.0**2
    if not touched.any():
        return color, cover
    away = away[touched]
    lines = _PALETTE[:, None] - canvas[touched]
    length = (lines * lines).sum(axis=-1)
    share = ((lines * away).sum(axis=-1) / length).clip(0, 1)
    rest = np.linalg.norm(away - share[..., None] * lines, axis=-1)
    best = rest.argmin(axis=0)
    columns = np.arange(len(best))
    color[touched] = best
    cover[touched] = np.where(rest[best, columns] < COLOR_TOLERANCE, share[best, columns], 0)
    return color, cover


def _find_objects(color: Int[np.ndarray, "64 64"], cover: Float32[np.ndarray, "64 64"]) -> Iterator[SeenObject]:
    solid = cover > 0.5
    found: list[tuple[int, str, Mask]] = [
        (int(own.sum()), _COLOR_NAMES[index], own)
        for index in np.unique(color[solid])
        for own in _components(solid & (color == index))
    ]
    found.sort(key=lambda entry: entry[0], reverse=True)
    for _, name, own in found[:MAX_OBJECTS]:
        rows, columns = _window(own.sum(axis=1)), _window(own.sum(axis=0))
        patch = _patch(own[rows, columns], solid[rows, columns], cover[rows, columns])
        yield _describe(name, patch, rows.start, columns.start)


def _components(mask: Mask) -> Iterator[Mask]:
    """Connected parts of at least MIN_AREA pixels; pixels that only touch at a corner are not connected."""
    labels = np.zeros(mask.shape, np.int32)
    untyped: Any = ndimage
    untyped.label(mask, output=labels)
    areas = np.bincount(labels.ravel())
    for number in np.flatnonzero(areas[1:] >= MIN_AREA) + 1:
        yield labels == number


def _window(present: NDArray[np.integer[Any]]) -> slice:
    """The range of positive entries and two more on either side."""
    where = np.flatnonzero(present)
    return slice(max(0, int(where[0]) - 2), int(where[-1]) + 3)


def _grown(mask: Mask) -> Mask:
    """``mask`` and the pixels that touch it, at corners too."""
    rows = mask.copy()
    rows[1:] |= mask[:-1]
    rows[:-1] |= mask[1:]
    grown = rows.copy()
    grown[:, 1:] |= rows[:, :-1]
    grown[:, :-1] |= rows[:, 1:]
    return grown


def _patch(own: Mask, solid: Mask, cover: Field) -> Field:
    """Coverage by one component: its own pixels and the soft edge around it, scaled so that its core is 1."""
    edge = _grown(own) & ~solid
    levels = np.sort(cover[own])
    core = max(0.5, float(levels[3 * len(levels) // 4]))
    return np.where(own | edge, cover / core, 0).clip(0, 1)


def _describe(color: str, patch: Field, top: int, left: int) -> SeenObject:
    """The shape that overlaps best when drawn with the patch's own area and centroid."""
    area = float(patch.sum())
    ys, xs = _SIDE[: patch.shape[0]] + top, _SIDE[: patch.shape[1]] + left
    x, y = float(patch.sum(axis=0) @ xs) / area, float(patch.sum(axis=1) @ ys) / area
    best = SeenObject(color=color, shape=None, x=x, y=y, radius=(area / np.pi) ** 0.5, fit=0.0)
    for shape, (unit_area, unit_y) in _UNITS.items():
        radius = (area / unit_area) ** 0.5
        center = y - unit_y * radius
        drawn = (0.5 - distance(shape, xs[None, :] - x, ys[:, None] - center, radius)).clip(0, 1)
        fit = float(np.minimum(drawn, patch).sum() / np.maximum(drawn, patch).sum())
        if fit > best.fit:
            best = SeenObject(color=color, shape=shape, x=x, y=center, radius=radius, fit=fit)
    return best if best.fit >= MIN_FIT else replace(best, shape=None)


def _measure(shape: str) -> tuple[float, float]:
    """Area of ``shape`` at radius 1, and the height of its centroid below its centre."""
    grid = (np.arange(600) + 0.5) / 250 - 1.2
    filled = distance(shape, grid[None, :], grid[:, None], 1.0) < 0
    return float(filled.sum()) / 250**2, float((filled.sum(axis=1) @ grid) / filled.sum())


_UNITS = {shape: _measure(shape) for shape in SHAPES}
