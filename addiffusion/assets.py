"""Where the trained weights of the embedded world lie inside the installed package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from addiffusion.errors import WeightsError

_EMBEDDED: Final = Path(__file__).parent / "embedded"
WEIGHTS_FOLDER: Final = _EMBEDDED / "weights"
SHIPPED: Final = "shipped"
"""Name of the policy that ships, wherever a policy is asked for."""
SHIPPED_LATENT: Final = "shipped-latent"
"""Name of the one that decides without scorers, trained over guidance scales, steps and prices."""
SHIPPED_PREVIEWS: Final = "shipped-previews"
"""Name of the one that sees one preview of each image, and may begin it again; trained over the same."""
POLICY_FOLDERS: Final[Mapping[str, Path]] = {
    SHIPPED: _EMBEDDED / "policy",
    SHIPPED_LATENT: _EMBEDDED / "policy_latent",
    SHIPPED_PREVIEWS: _EMBEDDED / "policy_previews",
}
"""By name: ``policy.safetensors``, the ``config.yaml`` it was trained with, and its policy card."""

REINSTALL: Final = "reinstall the package, or train the models with `addiffusion embedded train`"
"""What to do where embedded weights are missing or do not fit: the end of a sentence."""


def weights_path(*parts: str) -> Path:
    """The folder or file ``weights/<parts...>`` of the package, e.g. ``weights_path("pipeline", "vae")``.

    Raises:
        WeightsError: nothing lies there.
    """
    path = WEIGHTS_FOLDER.joinpath(*parts)
    if not path.exists():
        raise WeightsError(
            f"The embedded weights {'/'.join(parts)!r} are missing at {path}; {REINSTALL}.",
            path=str(path),
        )
    return path
