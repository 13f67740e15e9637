"""The files of each published model: names, shapes and types from the model classes, laid out as on the hub."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import diffusers
import open_clip
import timm
import torch
import transformers
from huggingface_hub import split_torch_state_dict_into_shards
from torch import Tensor, nn

from addiffusion.config.scorers import ClipSection, DinoSection, HpsSection
from addiffusion.quiet_loading import quiet_loading
from addiffusion.scorers.aesthetic import LaionHead
from addiffusion.scorers.image_reward import ImageRewardModel, ImageRewardShape
from scripts.full_size.files import File, SafetensorsFile, Shapes, TextFile, TorchFile
from scripts.full_size.published import PARTS, PICKSCORE, PIPELINES, SCHEDULERS, TAESD, TINY, TINY_PARTS, Options
from scripts.full_size.vocabularies import bert_vocabulary, clip_tokenizer, t5_tokenizer

_PLAIN: Final = {"sd15": torch.float32, "sdxl": torch.float32, "sd3": torch.float16, "flux": torch.bfloat16}
"""What the published files without a variant hold."""
_DIFFUSERS_SHARD, _TRANSFORMERS_SHARD = "10GB", "5GB"
_UNCUT, _WHOLE = ("sd15", "sdxl"), "100GB"
"""SD and SDXL were published before diffusers cut files."""
_T5: Final = ("text_encoder_3", "tokenizer_3")
_OLD_NAMES: Final = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
"""Of the attention in SD 1.5's autoencoder, whose file is older than the class."""
_PROJECTION: Final = 256
"""Width of BLIP's contrastive projections, which ImageReward's checkpoint has but does not use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Which form of a model is wanted."""

    fp16: bool = False
    """The variant `fp16` instead of the plain files (SD 1.5 and SDXL)."""
    t5: bool = True
    """SD3 with its largest text encoder."""
    flux_blocks: tuple[int, int] = (19, 38)
    """Double and single blocks of Flux: the published 12 B parameters need 24 GB."""
    tiny: bool = False
    """Pipelines of the same layout, small enough for a test."""
    shard: str = ""
    """Largest file of weights, as in `5GB`; empty cuts them as they are published."""


def files_of(model: str, order: Order) -> list[File]:
    """Every file of a model, the smallest first, in the folder of its name.

    Args:
        model: one of ``MODELS``.
        order: its form.
    """
    with quiet_loading(), torch.device("meta"):
        files = MODELS[model](order)
    return sorted(files, key=lambda file: file.size)


def published_tensors(model: ImageRewardModel) -> dict[str, Tensor]:
    """A checkpoint of this model as the original package writes it, unused tensors and all."""
    vision, text = model.vision.num_features, model.text.config.hidden_size
    found = {"blip.text_encoder.embeddings.position_ids": torch.arange(model.text.config.max_position_embeddings)[None]}
    for name, width in (("vision_proj", vision), ("text_proj", text)):
        found |= {f"blip.{name}.weight": torch.empty(_PROJECTION, width), f"blip.{name}.bias": torch.empty(_PROJECTION)}
    for name, tensor in model.state_dict().items():
        original = name if name.startswith("mlp.") else f"blip.{name}"
        original = original.replace("blip.vision.", "blip.visual_encoder.").replace("blip.text.", "blip.text_encoder.")
        found[original] = tensor
    return found


def _pipeline(name: str, order: Order) -> list[File]:
    root = Path(name)
    parts = {part: options for part, options in PARTS[name].items() if order.t5 or (name, part) != ("sd3", _T5[0])}
    index = dict(PIPELINES[name])
    files: list[File] = []
    for part, published in parts.items():
        options = _sized(name, part, published, order)
        library = "diffusers" if "_class_name" in options else "transformers"
        index[part] = [library, options.get("_class_name") or options["architectures"][0]]
        limit = order.shard or (_WHOLE if name in _UNCUT else "")
        files += _model_files(root / part, options, _dtype(name, order), fp16=order.fp16, limit=limit)
        if part.startswith("text_encoder"):
            tokenizer = part.replace("text_encoder", "tokenizer")
            index[tokenizer] = ["transformers", "T5Tokenizer" if _is_t5(options) else "CLIPTokenizer"]
            files += _texts(root / tokenizer, _tokenizer_of(name, part, options))
    if not order.t5 and name == "sd3":
        index |= {part: [None, None] for part in _T5}
    index["scheduler"] = ["diffusers", SCHEDULERS[name]["_class_name"]]
    small = {"model_index.json": index, "scheduler/scheduler_config.json": SCHEDULERS[name]}
    return [*files, *_texts(root, {path: json.dumps(tree, indent=2) for path, tree in small.items()})]


def _dtype(name: str, order: Order) -> torch.dtype:
    return torch.float16 if order.fp16 else _PLAIN[name]


def _is_t5(options: Options) -> bool:
    return options.get("model_type") == "t5"


def _tokenizer_of(name: str, part: str, options: Options) -> Mapping[str, str]:
    if _is_t5(options):
        return t5_tokenizer()
    return clip_tokenizer(pad="!") if name != "flux" and part == "text_encoder_2" else clip_tokenizer()


def _sized(name: str, part: str, options: Options, order: Order) -> Options:
    if name == "flux" and part == "transformer":
        options = options | dict(zip(("num_layers", "num_single_layers"), order.flux_blocks, strict=True))
    if not order.tiny:
        return options
    return options | TINY_PARTS.get("t5" if _is_t5(options) else part, {}) | TINY[name].get(part, {})


def _model_files(
    folder: Path, options: Options, dtype: torch.dtype, *, fp16: bool = False, limit: str = ""
) -> list[File]:
    """Configuration and weights of a model of diffusers or transformers.

    Args:
        folder: its own.
        options: of its configuration.
        dtype: of the files.
        fp16: whether they are of that variant.
        limit: of a file's size; empty takes the library's.
    """
    if "_class_name" in options:
        model = getattr(diffusers, options["_class_name"]).from_config(options)
        tensors, stem, limit = model.state_dict(), "diffusion_pytorch_model", limit or _DIFFUSERS_SHARD
    else:
        tensors, stem, limit = _text_tensors(options), "model", limit or _TRANSFORMERS_SHARD
    if folder == Path("sd15/vae"):
        tensors = {_old_name(name): tensor for name, tensor in tensors.items()}
    cast = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    config: File = TextFile(path=folder / "config.json", content=json.dumps(options, indent=2))
    return [config, *_shards(folder, stem, cast, variant="fp16" if fp16 else "", limit=limit)]


def _shards(folder: Path, stem: str, tensors: Shapes, *, variant: str, limit: str) -> list[File]:
    """As the libraries cut and name them."""
    middle = f".{variant}" if variant else ""
    plan = split_torch_state_dict_into_shards(
        dict(tensors), filename_pattern=f"{stem}{middle}{{suffix}}.safetensors", max_shard_size=limit
    )
    files: list[File] = [
        SafetensorsFile(path=folder / name, tensors={key: tensors[key] for key in keys})
        for name, keys in plan.filename_to_tensors.items()
    ]
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        name = f"{stem}.safetensors.index{middle}.json"
        files.append(TextFile(path=folder / name, content=json.dumps(index, indent=2)))
    return files


def _text_tensors(options: Options) -> dict[str, Tensor]:
    """Under the names of the files, which are older than those of transformers 5."""
    config = transformers.AutoConfig.for_model(**options)
    model: Any = getattr(transformers, options["architectures"][0])._from_config(config)
    tensors: dict[str, Tensor] = model.state_dict()
    if _is_t5(options):
        return {name: tensor for name, tensor in tensors.items() if name != "encoder.embed_tokens.weight"}
    if options["architectures"] == ["CLIPTextModel"]:
        tensors = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in tensors.items()}
        tensors["text_model.embeddings.position_ids"] = torch.arange(options["max_position_embeddings"])[None]
    return tensors


def _old_name(name: str) -> str:
    if ".attentions." not in name:
        return name
    for new, old in _OLD_NAMES.items():
        name = name.replace(f".{new}.", f".{old}.")
    return name


def _texts(folder: Path, contents: Mapping[str, str]) -> list[File]:
    return [TextFile(path=folder / name, content=content) for name, content in contents.items()]


def _clip(_order: Order) -> list[File]:
    model = open_clip.create_model(ClipSection().model, device="meta")
    return [SafetensorsFile(path=Path("clip/open_clip_model.safetensors"), tensors=model.state_dict())]


def _aesthetic(_order: Order) -> list[File]:
    return [TorchFile(path=Path("aesthetic/sac+logos+ava1-l14-linearMSE.pth"), tensors=LaionHead().state_dict())]


def _dino(_order: Order) -> list[File]:
    model: nn.Module = timm.create_model(DinoSection().model)
    return [SafetensorsFile(path=Path("dino/model.safetensors"), tensors=model.state_dict())]


def _image_reward(_order: Order) -> list[File]:
    tensors = published_tensors(ImageRewardModel(ImageRewardShape()))
    root = Path("image_reward")
    return [
        TorchFile(path=root / "ImageReward.pt", tensors=tensors),
        TextFile(path=root / "vocab.txt", content=bert_vocabulary()),
    ]


def _hps(_order: Order) -> list[File]:
    tensors = open_clip.create_model(HpsSection().model, precision="fp32", device="meta").half().state_dict()
    return [TorchFile(path=Path("hps/HPS_v2.1_compressed.pt"), tensors=tensors, wrapped=True)]


def _pickscore(_order: Order) -> list[File]:
    return _model_files(Path("pickscore"), PICKSCORE, torch.float32)


def _taesd(_order: Order) -> list[File]:
    return _model_files(Path("taesd"), TAESD, torch.float32)


MODELS: Final[Mapping[str, Callable[[Order], list[File]]]] = {
    **{name: lambda order, name=name: _pipeline(name, order) for name in PARTS},
    "taesd": _taesd,
    "clip": _clip,
    "aesthetic": _aesthetic,
    "dino": _dino,
    "image_reward": _image_reward,
    "hps": _hps,
    "pickscore": _pickscore,
}
"""What can be written."""
