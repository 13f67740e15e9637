"""Forwards of a CLIP image encoder, counted."""

from __future__ import annotations

from typing import Any

import pytest

from addiffusion.scorers.clip import ClipTower


def image_forwards(tower: ClipTower, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images of each forward from now on."""
    seen: list[int] = []
    model: Any = tower._model  # pyright: ignore[reportPrivateUsage]
    encode = model.encode_image

    def counting(images: Any, **options: Any) -> Any:
        seen.append(len(images))
        return encode(images, **options)

    monkeypatch.setattr(model, "encode_image", counting)
    return seen
