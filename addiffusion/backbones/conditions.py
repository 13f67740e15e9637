"""What a UNet may want to know besides latent, timestep and text; what the engine does not feed is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from addiffusion.errors import ConfigError

_UNCONDITIONED: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "time_cond_proj_dim": None,
        "class_embed_type": None,
        "num_class_embeds": None,
        "addition_embed_type": None,
        "encoder_hid_dim": None,
        "encoder_hid_dim_type": None,
        "attention_type": "default",
    }
)
"""Options of UNet2DConditionModel that add an input, with the value that does not."""


def check_conditions(network: Mapping[str, Any], **fed: Any) -> None:
    """Refuse a network that would be run without one of its inputs, or that gives more than its noise prediction.

    Args:
        network: the UNet's options.
        **fed: options whose input the family feeds, with the value it feeds them for.

    Raises:
        ConfigError: an option asks for another input.
    """
    for option, plain in {**_UNCONDITIONED, **fed}.items():
        value = network.get(option, plain)
        if value != plain:
            raise ConfigError(
                f"The network is conditioned by {option}={value!r} in unet/config.json, which this family's sampling "
                f"does not feed (it works with {plain!r}): give a folder of a plain text-to-image pipeline.",
                option=option,
            )
    if network["out_channels"] > network["in_channels"]:
        raise ConfigError(
            f"The network gives out_channels={network['out_channels']} for in_channels={network['in_channels']} in "
            "unet/config.json: only networks whose output has the shape of the latent can be sampled.",
            option="out_channels",
        )
