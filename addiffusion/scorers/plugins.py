"""Scorers of users, found by their import path (``scorers.extra``)."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import cast

import torch

from addiffusion.errors import ConfigError
from addiffusion.scorers.base import Scorer

Factory = Callable[[torch.device], Scorer]


def load_plugin(path: str, device: torch.device) -> Scorer:
    """The scorer that the factory at ``path`` (``module:factory``) makes for ``device``.

    Raises:
        ConfigError: the module can't be imported, or has no such factory.
    """
    return find_plugin(path)(device)


def find_plugin(path: str) -> Factory:
    """The factory at ``path`` (``module:factory``).

    Raises:
        ConfigError: the module can't be imported, or has no such factory.
    """
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a border: what a user's module raises while it is imported is anything
        reason = f"{type(error).__name__}: {error}" if not isinstance(error, ImportError) else str(error)
        raise ConfigError(
            f"scorers.extra names {path!r}, but {module_name} can't be imported ({reason}): install it, or put its "
            "folder on PYTHONPATH, on every machine that scores.",
            path=path,
        ) from error
    factory = getattr(module, name, None)
    if not callable(factory):
        raise ConfigError(
            f"scorers.extra names {path!r}, but {module_name} has no factory {name}: give the name of a function "
            "there that takes a torch device.",
            path=path,
        )
    return cast("Factory", factory)
