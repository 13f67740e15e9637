"""The application that `serve.yaml` names: `serve deploy serve.yaml`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ray.serve import Application

from addiffusion.assets import SHIPPED_LATENT
from addiffusion.configuration.errors import describe
from addiffusion.errors import ConfigError
from launch.runtime.meters import engine_meters
from serving.app import ReplicaOptions, application
from serving.limits import Limits
from serving.model import load_served_model
from serving.security import access_for, read_key


class ServeArguments(BaseModel):
    """`args` of the application in `serve.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy: str = SHIPPED_LATENT
    """One that ships, a run, a checkpoint or an exported folder on every node, or none."""
    overrides: tuple[str, ...] = ()
    """Configuration overrides such as rollout.slots=16."""
    host: str = "127.0.0.1"
    """That of `http_options`: beyond loopback there has to be a key."""
    api_key_file: Path | None = None
    """File with the API key on every node; else ADDIFFUSION_API_KEY of their environment."""
    waiting: int = Field(default=128, ge=1)
    """Images that may wait in one engine."""


def build(given: dict[str, Any]) -> Application:
    """The application.

    Args:
        given: the fields of ``ServeArguments``. Serve would make them one itself, but not where annotations are
            texts, as here.

    Raises:
        ConfigError: they can't be used, or it is reached from other machines and there is no key.
    """
    try:
        arguments = ServeArguments.model_validate(given)
    except ValidationError as error:
        raise ConfigError(f"args of serve.yaml: {describe(error, ServeArguments)}") from error
    access_for(arguments.host, read_key(arguments.api_key_file))
    options = ReplicaOptions(
        load=partial(load_served_model, arguments.policy, overrides=arguments.overrides),
        host=arguments.host,
        key_file=arguments.api_key_file,
        limits=replace(Limits(), waiting_images=arguments.waiting),
    )
    return application(options, engine_meters)
