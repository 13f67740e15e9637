"""Widths of a model's features, read from its configuration files: a driver that sizes a policy loads no weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from addiffusion.backbones.model_files import pipeline_folder, read_object
from addiffusion.backbones.part_files import PIPELINE_ADVICE, UNETS, network_name
from addiffusion.config import BackboneSection
from addiffusion.errors import WeightsError
from addiffusion.weights import gist

_SIZE_CONDITIONS = 6
"""SDXL embeds the original size, the crop's corner and the target size beside the pooled text vector."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureWidths:
    """What the ``latent`` observation needs to know of a backbone."""

    middle: int
    """Width of the middle block's features."""
    text: int
    """Width of a prompt's vector."""


def feature_widths(section: BackboneSection) -> FeatureWidths:
    """Widths of the model a configuration names.

    Raises:
        WeightsError: its configuration can't be read.
    """
    try:
        return _widths(section, _network_config(section))
    except (LookupError, TypeError) as error:
        raise WeightsError(
            f"backbone.path={section.path!r} has a network configuration without {error}, which backbone.kind="
            f"{section.kind} needs: give a folder of that kind.",
            path=section.path,
        ) from error


def _widths(section: BackboneSection, config: Mapping[str, Any]) -> FeatureWidths:
    if section.kind not in UNETS:
        return FeatureWidths(
            middle=config["num_attention_heads"] * config["attention_head_dim"], text=config["pooled_projection_dim"]
        )
    text = config["cross_attention_dim"]
    if section.kind == "sdxl":
        sizes = _SIZE_CONDITIONS * config["addition_time_embed_dim"]
        text = config["projection_class_embeddings_input_dim"] - sizes
    return FeatureWidths(middle=config["block_out_channels"][-1], text=text)


def _network_config(section: BackboneSection) -> Mapping[str, Any]:
    folder = pipeline_folder(section)
    source = str(section.path if folder is None else folder)
    network = network_name(section.kind)
    try:
        file = _from_hub(source, network) if folder is None else folder / network / "config.json"
        return read_object(file)
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"backbone.path={source!r} has no readable network configuration ({gist(error)}): {PIPELINE_ADVICE}.",
            path=source,
        ) from error


def _from_hub(source: str, network: str) -> Path:
    from transformers.utils.hub import (  # noqa: PLC0415 - a second
        cached_file,  # pyright: ignore[reportUnknownVariableType] - a bare PathLike
    )

    return Path(str(cached_file(source, "config.json", subfolder=network)))
