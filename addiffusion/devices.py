"""Names of torch devices in configuration and command line."""

from __future__ import annotations

import torch

from addiffusion.errors import ConfigError


def resolve_device(name: str, *, key: str) -> torch.device:
    """The device ``name`` means here; ``auto`` is the GPU where torch sees one, else the CPU.

    Args:
        name: ``auto`` or a torch device.
        key: where the name was set, for the error.

    Raises:
        ConfigError: torch has no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n", maxsplit=1)[0]
        raise ConfigError(
            f"{key}={name!r} is not available here ({reason}): use auto, cpu or cuda.", device=name
        ) from error
