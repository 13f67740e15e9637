"""Weights & Biases, where somebody wants it: the package is no dependency."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from addiffusion.config import Config
from addiffusion.errors import ConfigError


def check_tracking(config: Config) -> None:
    """Refuse a run whose metrics could not be sent.

    Raises:
        ConfigError: the package is missing.
    """
    if config.tracking.wandb != "off" and find_spec("wandb") is None:
        raise ConfigError(
            f"tracking.wandb={config.tracking.wandb} needs the package wandb, which is not installed: "
            "`uv pip install wandb`, or set tracking.wandb=off.",
            wandb=config.tracking.wandb,
        )


class Tracker:
    """Sends each line of metrics; does nothing where tracking is off. A resumed run goes on under its own id."""

    def __init__(self, config: Config, path: Path) -> None:
        self._run: Any = None
        if config.tracking.wandb != "off":
            import wandb  # noqa: PLC0415 # pyright: ignore[reportMissingImports]

            self._run = wandb.init(
                project=config.tracking.wandb_project,
                name=path.name,
                id=path.name,
                resume="allow",
                dir=str(path),
                mode=config.tracking.wandb,
                config=config.model_dump(mode="json"),
            )

    def log(self, row: Mapping[str, float | int | None]) -> None:
        """Send one iteration."""
        if self._run is not None:
            numbers = {name: value for name, value in row.items() if value is not None}
            self._run.log(numbers, step=int(row["iteration"] or 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._run is not None:
            self._run.finish(exit_code=0 if error is None else 1)
