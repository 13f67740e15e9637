"""Diffusion models behind one port."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from addiffusion.memory import without_garbage_search

if TYPE_CHECKING:
    from addiffusion.backbones.base import Backbone
    from addiffusion.config import BackboneSection

_FAMILIES = {
    "embedded": ("stable_diffusion", "StableDiffusionBackbone"),
    "stable_diffusion": ("stable_diffusion", "StableDiffusionBackbone"),
    "sdxl": ("sdxl", "SdxlBackbone"),
    "sd3": ("sd3", "Sd3Backbone"),
    "flux": ("flux", "FluxBackbone"),
}


def load_backbone(section: BackboneSection) -> Backbone:
    """Load the model a configuration names.

    Raises:
        WeightsError: the folder or hub id can't be loaded.
        ConfigError: it is not a pipeline of the kind asked for.
    """
    return backbone_class(section.kind).from_section(section)


def backbone_class(kind: str) -> Any:
    """The class behind a ``backbone.kind``."""
    # diffusers takes seconds to import: only those who load a model pay for it, and only for its family.
    module, name = _FAMILIES[kind]
    path = f"{__name__}.{module}"
    if path not in sys.modules:  # a pipeline asks at every call
        with without_garbage_search():
            import_module(path)
    return getattr(sys.modules[path], name)
