"""Sides of latents, from the sides of images that somebody asks for."""

from __future__ import annotations

from dataclasses import dataclass

from addiffusion.errors import ConfigError

ImageSize = tuple[int | None, int | None]
"""Height and width in pixels; None is the model's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentSides:
    """Which sides a model's latents can have."""

    own: tuple[int, int]
    """Height and width the model was made for."""
    scale: int
    """Pixels of the image for each of the latent."""
    stride: int
    """A side is a multiple of this."""
    largest: int | None
    """Largest side; None without a limit."""

    def of(self, size: ImageSize, *, keys: tuple[str, str]) -> tuple[int, int]:
        """Height and width of the latent of an image.

        Args:
            size: of the image.
            keys: what said its height and its width, for messages.

        Raises:
            ConfigError: the model can't make such an image.
        """
        height, width = (
            own if pixels is None else self._of(pixels, key)
            for pixels, own, key in zip(size, self.own, keys, strict=True)
        )
        return height, width

    def _of(self, pixels: int, key: str) -> int:
        step = self.scale * self.stride
        if pixels % step:
            nearest = max(step, round(pixels / step) * step)
            raise ConfigError(
                f"{key}={pixels} can't be taken: this model makes images whose sides are multiples of {step}; the "
                f"nearest is {nearest}.",
                image_size=pixels,
            )
        side = pixels // self.scale
        if self.largest is not None and side > self.largest:
            raise ConfigError(
                f"{key}={pixels} can't be taken: this model places at most {self.largest * self.scale} pixels a side; "
                "choose that or less.",
                image_size=pixels,
            )
        return side
