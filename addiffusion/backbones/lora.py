"""LoRA files (arXiv:2106.09685), read by diffusers and peft, fused into the weights once: sampling costs as before.

What diffusers reads is applied; a tensor that it would leave out is an error here, where diffusers only warns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

import torch
from diffusers.utils import state_dict_utils
from safetensors import safe_open
from torch import Tensor, nn

from addiffusion.errors import WeightsError
from addiffusion.json_object import is_object
from addiffusion.quiet_loading import quiet_loading
from addiffusion.torch_typed import named_modules
from addiffusion.weights import LOAD_FAILURES, gist, read_tensors

_METADATA: Final = "lora_adapter_metadata"
"""Where diffusers and peft leave rank and alpha."""
_ALPHA: Final = ".alpha"
_PAIR: Final = ("lora_A", "lora_B")
_MAGNITUDE: Final = "lora_magnitude_vector"
"""Of a DoRA (arXiv:2402.09353), which has one in every layer."""
_DOWN: Final = ("lora_down.weight", "lora_A.weight", "lora.down.weight")
_UP: Final = ("lora_up.weight", "lora_B.weight", "lora.up.weight")
_NAMES: Final = (
    "Names that are read: diffusers' and peft's ('unet.', 'transformer.' or 'text_encoder.', with '.lora_A.weight' and "
    "'.lora_B.weight', or attention processors), kohya's for SD, SDXL and Flux ('lora_unet_', 'lora_te_'), and those "
    "of the original repositories for SDXL and Flux."
)


def fuse_lora(pipeline: Any, path: str) -> None:
    """Add a LoRA to the weights of a pipeline's denoiser and text encoders.

    Args:
        pipeline: of the family; only its weights change.
        path: of a local .safetensors file.

    Raises:
        WeightsError: the file can't be read, a tensor in it would have no effect, or it is for another model.
    """
    named = f"backbone.lora={path!r}"
    file = Path(path)
    if file.suffix != ".safetensors":
        raise WeightsError(f"{named} is no .safetensors file: give a local one.", path=path)
    tensors = read_tensors(file)
    source: Any = str(file)
    if any(key.endswith(_ALPHA) for key in tensors):
        source = tensors = _scaled(tensors, named)
    else:
        _check_metadata(file, named)
    try:
        with quiet_loading():
            _check_used(pipeline, tensors, named)
            pipeline.load_lora_weights(source, adapter_name="lora", low_cpu_mem_usage=False, local_files_only=True)
            pipeline.fuse_lora(components=list(pipeline._lora_loadable_modules))
            pipeline.unload_lora_weights()
    except LOAD_FAILURES as error:
        raise WeightsError(f"{named} can't be applied to this model ({gist(error)}): {_NAMES}", path=path) from error


def _scaled(tensors: Mapping[str, Tensor], named: str) -> dict[str, Tensor]:
    """The same change of the weights without alphas: each is put into its pair as alpha / rank.

    diffusers 0.42 gives alphas to the wrong layers where attention layers of one file differ in them.
    """
    plain = {key: tensor for key, tensor in tensors.items() if not key.endswith(_ALPHA)}
    for key in tensors.keys() - plain.keys():
        layer = key.removesuffix(_ALPHA)
        down, up = (_first(plain, layer, ends) for ends in (_DOWN, _UP))
        if down is None or up is None:
            raise WeightsError(f"{named} has a tensor {key!r} without a pair of matrices: {_NAMES}", tensor=key)
        scale = float(tensors[key]) / plain[down].shape[0]
        plain[up] = (plain[up].float() * scale).to(plain[up].dtype)
    return plain


def _first(tensors: Mapping[str, Tensor], layer: str, ends: tuple[str, ...]) -> str | None:
    return next((f"{layer}.{end}" for end in ends if f"{layer}.{end}" in tensors), None)


def _check_metadata(file: Path, named: str) -> None:
    """Peft can't tell from the model which layers are meant: the metadata says it, or there is none."""
    opening: Any = safe_open
    with opening(file, framework="pt") as opened:
        metadata: Mapping[str, str] = opened.metadata() or {}
    text = metadata.get(_METADATA)
    if text is None:
        return
    try:
        options = json.loads(text)
    except ValueError as error:
        raise WeightsError(f"{named} has metadata {_METADATA} that is no JSON ({error}): save it again.") from error
    if not is_object(options) or not any(key.endswith(".target_modules") for key in options):
        raise WeightsError(
            f"{named} has metadata {_METADATA} without target_modules: save it by diffusers or peft, which name the "
            "layers there.",
            path=str(file),
        )


def _check_used(pipeline: Any, tensors: Mapping[str, Tensor], named: str) -> None:
    """Every tensor of the file changes a layer of the model."""
    read, unread = _converted(pipeline, tensors)
    parts = {name: getattr(pipeline, name) for name in pipeline._lora_loadable_modules}
    strangers = [key for key in read if key.partition(".")[0] not in parts]
    layerless = [key for name, part in parts.items() for key in _without_layer(name, part, read)]
    for keys in (unread, strangers, layerless):
        if keys:
            others = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise WeightsError(
                f"{named} holds a tensor that would have no effect here, {min(keys)!r}{others}: give a LoRA of this "
                f"very model without it. {_NAMES}",
                tensor=min(keys),
            )


def _converted(pipeline: Any, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Stand-ins for the tensors under the names diffusers gives them, and the names that none of them depends on."""
    hints = {"unet_config": pipeline.unet.config} if hasattr(pipeline, "unet") else {}
    with torch.enable_grad():
        leaves = {key: torch.ones(()).requires_grad_() for key in tensors}
        expanded = {key: leaves[key].expand(tensors[key].shape) for key in tensors}
        found: tuple[dict[str, Tensor], ...] | dict[str, Tensor] = pipeline.lora_state_dict(expanded, **hints)
        read = found[0] if isinstance(found, tuple) else found
        if not read:
            return read, list(leaves)
        total = torch.stack([tensor.sum() for tensor in read.values()]).sum()
        gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    unread = cast("tuple[Tensor | None, ...]", gradients)
    return read, [key for key, gradient in zip(leaves, unread, strict=True) if gradient is None]


def _without_layer(name: str, part: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Tensors for a part that lack their layer there, or another tensor of their layer."""
    own = {key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}
    renamed = list(_layer_names(own, part))
    needed = [f"{one}.weight" for one in _PAIR] + [_MAGNITUDE] * any(key.endswith(_MAGNITUDE) for key in renamed)
    layers = {layer for layer, _ in named_modules(part)}
    for key, given in zip(renamed, own, strict=True):
        layer = key.partition(".lora_")[0]
        if layer not in layers or not all(f"{layer}.{one}" in renamed for one in needed):
            yield f"{name}.{given}"


def _layer_names(tensors: Mapping[str, Tensor], part: nn.Module) -> Iterator[str]:
    """Names as peft knows them, in the order of the tensors."""
    convert: Any = state_dict_utils
    if hasattr(part, "load_lora_adapter"):  # a model of diffusers
        yield from convert.convert_unet_state_dict_to_peft(tensors)
        return
    if tensors:
        inner = "" if hasattr(part, "text_model") else "text_model."
        names: Mapping[str, Tensor] = convert.convert_state_dict_to_peft(
            convert.convert_state_dict_to_diffusers(tensors)
        )
        yield from (name.removeprefix(inner) for name in names)
