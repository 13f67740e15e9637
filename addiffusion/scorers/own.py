"""Scorers of a user's own, found by their import path."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import cast

import torch

from addiffusion.errors import ConfigError
from addiffusion.scorers.base import Scorer


def load_own(path: str, device: torch.device) -> Scorer:
    """What the factory at ``path`` (``module:factory``) makes for ``device``.

    Raises:
        ConfigError: the module can't be imported, or has no such factory.
    """
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"scorers.extra names {path!r}, but {module_name} can't be imported ({error}): install it, or put its "
            "folder on PYTHONPATH, on every machine that scores.",
            path=path,
        ) from error
    factory = cast("Callable[[torch.device], Scorer] | None", getattr(module, name, None))
    if factory is None:
        raise ConfigError(f"scorers.extra names {path!r}, but {module_name} has no {name}.", path=path)
    return factory(device)
