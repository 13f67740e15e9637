"""A trained policy as a component of a diffusers pipeline, beside unet and vae."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Self, cast

import diffusers.configuration_utils as diffusers_configuration
import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from addiffusion.config import Config
from addiffusion.configuration.earlier import updated
from addiffusion.configuration.text import to_yaml
from addiffusion.errors import CheckpointError
from addiffusion.files import write_text
from addiffusion.pipeline.card import PolicyCard
from addiffusion.policy import PolicyNetwork
from addiffusion.policy_files import CONFIG_FILE, TrainedPolicy, read_policy, widths_of
from addiffusion.torch_typed import from_numpy

_registered: Any = cast("Any", diffusers_configuration).register_to_config


class Policy(ModelMixin, ConfigMixin):
    """Decides for each image and step: continue, stop or refine.

    A component like any other: ``save_pretrained`` and ``from_pretrained`` (config.json and safetensors, with the
    policy card as README.md), ``to(device)``. It stays in float32 whatever the pipeline is cast to, so that decisions
    do not depend on the precision of the network.

    Examples:
        >>> from addiffusion import load_policy
        >>> policy = load_policy("shipped")
        >>> policy.trained_with.observation.kind
        'clip'
    """

    _keep_in_fp32_modules = ["network"]  # noqa: RUF012 - diffusers declares it so

    @_registered
    def __init__(self, input_width: int, configuration: dict[str, Any], card: dict[str, Any] | None = None) -> None:
        """An untrained policy of the given size.

        Args:
            input_width: p, width of phi.
            configuration: all keys of the configuration it was trained with.
            card: what ``PolicyCard.plain`` gives; None where nothing was measured.
        """
        super().__init__()
        del card  # kept by the registration
        section = _validated(configuration).policy
        self.network = PolicyNetwork(input_width, section.hidden, actions=section.actions)

    @classmethod
    def of(cls, trained: TrainedPolicy) -> Self:
        """The policy that files hold.

        Raises:
            ConfigError: its configuration can't be read.
            CheckpointError: its weights are not those of a policy of that configuration.
        """
        config = trained.config([])
        seen, *hidden = widths_of(trained.weights)
        trained.check_fits(config, seen)
        policy = cls(
            input_width=seen,
            configuration=config.model_dump(mode="json"),
            card=None if trained.card is None else dict(trained.card),
        )
        try:
            policy.network.load_state_dict({name: from_numpy(value.copy()) for name, value in trained.weights.items()})
        except RuntimeError as error:
            raise CheckpointError(
                f"The policy {trained.name} has no network of hidden layers {hidden}: export it again.",
                policy=trained.name,
            ) from error
        return policy.eval()

    @cached_property
    def trained_with(self) -> Config:
        """The configuration of its training."""
        return _validated(self.config["configuration"])

    @property
    def card(self) -> PolicyCard | None:
        """What it was trained for and how it did; None where nothing was measured."""
        card = self.config["card"]
        return None if card is None else PolicyCard.of(_plain(card))

    @property
    def dtype(self) -> torch.dtype:  # pyright: ignore[reportIncompatibleVariableOverride] - diffusers would ask a buffer
        """float32."""
        return next(self.network.parameters()).dtype

    @property
    def input_width(self) -> int:
        """p, width of phi."""
        return self.config["input_width"]

    def forward(self, phi: Float[Tensor, "*row p"]) -> Float[Tensor, "*row action"]:
        """Logits of any number of observations."""
        return self.network(phi)

    def actor(self) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        """(S, p) observations to (S, a) logits, by a copy of the weights as they are now and where they are now."""
        device, network = self.network.forbidden.device, self.network.frozen()

        def act(phi: NDArray[np.float32]) -> NDArray[np.float32]:
            with torch.inference_mode():
                return network(from_numpy(phi).to(device)).cpu().numpy()

        return act

    def to(self, *args: Any, **kwargs: Any) -> Self:  # pyright: ignore[reportIncompatibleVariableOverride] - wrapped there
        """Move; a dtype is left aside."""
        args = tuple(one for one in args if not isinstance(one, torch.dtype))
        kwargs.pop("dtype", None)
        moved = [one for one in (*args, *kwargs.values()) if one is not None]
        return cast("Any", super()).to(*args, **kwargs) if moved else self

    def save_pretrained(  # noqa: PLR0913, PLR0917 - as diffusers has it
        self,
        save_directory: str | PathLike[str],
        is_main_process: bool = True,
        save_function: Callable[..., Any] | None = None,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str = "10GB",
        push_to_hub: bool = False,
        use_flashpack: bool = False,
        **kwargs: Any,
    ) -> None:
        """As of diffusers; beside it config.yaml, which the command line reads, and the policy card.

        Args:
            save_directory: a folder.
            is_main_process: as of diffusers, like all that follow.
            save_function: the same.
            safe_serialization: the same.
            variant: the same.
            max_shard_size: the same.
            push_to_hub: the same.
            use_flashpack: the same.
            **kwargs: the same.
        """
        cast("Any", super()).save_pretrained(
            save_directory,
            is_main_process=is_main_process,
            save_function=save_function,
            safe_serialization=safe_serialization,
            variant=variant,
            max_shard_size=max_shard_size,
            push_to_hub=push_to_hub,
            use_flashpack=use_flashpack,
            **kwargs,
        )
        write_text(Path(save_directory) / CONFIG_FILE, to_yaml(self.trained_with))
        if self.card is not None:
            self.card.write(Path(save_directory))


def load_policy(name: str | PathLike[str]) -> Policy:
    """A trained policy, to look at or to hand to a pipeline.

    Args:
        name: ``shipped``, a run folder, a checkpoint folder, a folder that `addiffusion export` wrote, or the policy
            folder of a saved pipeline.

    Raises:
        RunFolderError: there is none.
        CheckpointError: its files are missing or damaged.
        ConfigError: its configuration can't be read.

    Examples:
        >>> from addiffusion import load_policy
        >>> load_policy("shipped").trained_with.sampler.num_steps
        50
    """
    return Policy.of(read_policy(str(name)))


def _validated(configuration: Any) -> Config:
    """The configuration, which an earlier version may have saved."""
    return Config.model_validate_json(json.dumps(updated(_plain(configuration))), strict=True)


def _plain(value: Any) -> Any:
    """Diffusers freezes what it registers; JSON does not know its types."""
    return json.loads(json.dumps(value))
