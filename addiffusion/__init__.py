"""Learned adaptive compute for text-to-image diffusion: the Ray-free library."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from addiffusion.configuration.files import load_config
    from addiffusion.pipeline.adaptive import AdaptivePipeline
    from addiffusion.pipeline.output import AdaptivePipelineOutput
    from addiffusion.pipeline.policy import Policy, load_policy

__version__ = "0.1.0"
__all__ = ["AdaptivePipeline", "AdaptivePipelineOutput", "Policy", "load_config", "load_policy"]

_HOMES = {
    "AdaptivePipeline": "pipeline.adaptive",
    "AdaptivePipelineOutput": "pipeline.output",
    "Policy": "pipeline.policy",
    "load_config": "configuration.files",
    "load_policy": "pipeline.policy",
}


def __getattr__(name: str) -> Any:
    """The libraries behind these names take seconds to import: each is imported when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
