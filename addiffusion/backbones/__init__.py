"""Diffusion models behind one port."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from addiffusion.backbones.base import Backbone
    from addiffusion.config import BackboneSection


def load_backbone(section: BackboneSection) -> Backbone:
    """Load the model a configuration names.

    Raises:
        WeightsError: the folder or hub id can't be loaded.
        ConfigError: it is not a pipeline of the kind asked for.
    """
    # diffusers takes seconds to import: only those who load a model pay for it.
    from addiffusion.backbones.stable_diffusion import StableDiffusionBackbone  # noqa: PLC0415

    return StableDiffusionBackbone.from_section(section)
