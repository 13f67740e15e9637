"""First lessons of the text encoder: which count, size, colour, shape and relation each word of a caption stands in.

The denoiser and the text encoder are trained together afterwards. But that a colour belongs to the noun after it, and a
relation to the group before it, is learned in a minute from captions alone, and in hours through a denoiser's gradient.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (the name everyone knows it by)
from transformers import CLIPTextModel, CLIPTokenizer

from addiffusion.embedded.making.part import (
    Objective,
    PartReport,
    Recipe,
    StepLoss,
    TrainingContext,
    initialised_by,
    run_training,
)
from addiffusion.embedded.models.denoiser import TEXT_WIDTH, build_text_encoder
from addiffusion.embedded.models.pipeline_folder import save_module
from addiffusion.embedded.models.tokenizer import encode, load_tokenizer
from addiffusion.embedded.world.captions import MAX_GROUPS, NUMBERS, SAID_SIZES, RequiredGroup, parse_caption
from addiffusion.embedded.world.data import describe, stream
from addiffusion.embedded.world.scenes import BACKGROUNDS, COLORS, POSITIONS, RELATIONS, SHAPES, TEXTURES, sample_scene
from addiffusion.errors import WeightsError
from addiffusion.quiet_loading import quiet_loading
from addiffusion.seeds import derive_seed
from addiffusion.weights import LOAD_FAILURES, gist, load_whole

_STEPS: Final = 1_200
_RECIPE: Final = Recipe(lr=2.0e-3, warmup_steps=50, decay_from=0.3, ema_decay=0.99)
_HELD_OUT: Final = 1_000
_NOUNS: Final = frozenset(SHAPES) | {f"{shape}s" for shape in SHAPES}

_GROUP: Final[dict[str, tuple[Any, ...]]] = {
    "count": (None, *NUMBERS),
    "size": (None, *SAID_SIZES),
    "color": (None, *COLORS),
    "shape": (None, *SHAPES),
}
"""Tags of one group of objects; None where the caption is silent."""
_NOUN: Final = {**_GROUP, "group": tuple(range(MAX_GROUPS))}
_WHOLE: Final[dict[str, tuple[Any, ...]]] = {
    "relation": (None, *RELATIONS),
    "position": (None, *POSITIONS),
    "texture": (None, *TEXTURES),
    "background": (None, *BACKGROUNDS),
    **{f"{name} {index}": values for index in range(MAX_GROUPS) for name, values in _GROUP.items()},
}
"""Tags of the end token, which has seen the whole caption."""


class TextPart:
    """Trains the text encoder to tag the nouns of a caption, and its end with everything that was said."""

    name = "text"

    def train(self, context: TrainingContext) -> PartReport:
        """Writes ``training/text/text_encoder``; reports the share of tags that are right on fresh captions."""
        tokenizer = load_tokenizer(context.out / "pipeline")
        size = context.batch_size(cpu=96, cuda=512)
        with initialised_by(context.seed, self.name):
            model = nn.ModuleDict({"text_encoder": build_text_encoder(tokenizer), "tagger": _Tagger()})

        def loss(step: int) -> StepLoss:
            captions = draw_captions(derive_seed(context.seed, self.name, step), size)
            total, right = _tag(model, tokenizer, captions, context.device)
            return StepLoss(total=total, metrics={"loss": total, "right": right})

        objective = Objective(name=self.name, module=model, loss=loss, recipe=_RECIPE)
        result = run_training(objective, context, steps=context.steps(_STEPS))
        # Not into the pipeline: there it belongs to the denoiser that it is trained on with.
        save_module(model["text_encoder"], _folder(context))  # pyright: ignore[reportArgumentType]
        held_out = draw_captions(derive_seed(context.seed, self.name, "held-out"), context.pool_size(cpu=_HELD_OUT))
        with torch.no_grad():
            return result.report({"right": float(_tag(model, tokenizer, held_out, context.device)[1])})


def load_text_encoder(context: TrainingContext) -> CLIPTextModel:
    """The encoder after its first lessons.

    Raises:
        WeightsError: it is missing, damaged or does not fit.
    """
    folder, advice = _folder(context), f"train the part `{TextPart.name}` first"
    if not folder.is_dir():
        raise WeightsError(f"There is no text encoder at {folder}; {advice}.", path=str(folder))
    try:
        with quiet_loading():
            return load_whole(CLIPTextModel, str(folder), part="the text encoder", named=str(folder), advice=advice)
    except LOAD_FAILURES as error:
        raise WeightsError(
            f"The text encoder at {folder} can't be loaded ({gist(error)}); {advice}.", path=str(folder)
        ) from error


def draw_captions(seed: int, count: int) -> tuple[str, ...]:
    """Captions of fresh scenes of all tiers."""
    rng = stream(seed)
    return describe([sample_scene(rng) for _ in range(count)], rng)


def _folder(context: TrainingContext) -> Path:
    return context.folder(TextPart.name) / "text_encoder"


class _Tagger(nn.Module):
    """One linear reader for nouns, one for end tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.noun = nn.Linear(TEXT_WIDTH, sum(map(len, _NOUN.values())))
        self.whole = nn.Linear(TEXT_WIDTH, sum(map(len, _WHOLE.values())))


def _tag(
    model: nn.ModuleDict, tokenizer: CLIPTokenizer, captions: tuple[str, ...], device: torch.device
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Mean cross-entropy of all tags, and the share of them that is right."""
    hidden: Tensor = model["text_encoder"](encode(tokenizer, captions).to(device))[0]
    nouns: list[tuple[int, int]] = []
    ends: list[tuple[int, int]] = []
    noun_tags: list[list[int]] = []
    whole_tags: list[list[int]] = []
    for row, caption in enumerate(captions):
        words = caption.split()
        nouns += [(row, place + 1) for place, word in enumerate(words) if word in _NOUNS]  # the start token is first
        ends.append((row, len(words) + 1))
        of_nouns, of_whole = _tags(caption)
        noun_tags += of_nouns
        whole_tags.append(of_whole)
    tagger: Any = model["tagger"]
    parts = [
        _judge(tagger.noun(hidden[tuple(zip(*nouns, strict=True))]), noun_tags, _NOUN),
        _judge(tagger.whole(hidden[tuple(zip(*ends, strict=True))]), whole_tags, _WHOLE),
    ]
    losses, hits = (torch.stack(values).mean() for values in zip(*parts, strict=True))
    return losses, hits


def _judge(
    logits: Float[Tensor, "n all"], tags: list[list[int]], kinds: dict[str, tuple[Any, ...]]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    wanted = torch.tensor(tags, device=logits.device).unbind(dim=1)
    split = torch.split(logits, [len(values) for values in kinds.values()], dim=1)
    losses = [F.cross_entropy(part, tag) for part, tag in zip(split, wanted, strict=True)]
    hits = [(part.argmax(dim=1) == tag).float().mean() for part, tag in zip(split, wanted, strict=True)]
    return torch.stack(losses).mean(), torch.stack(hits).mean()


def _tags(caption: str) -> tuple[list[list[int]], list[int]]:
    """Indices of the right tags: for each noun in the order of _NOUN, and for the whole in the order of _WHOLE."""
    said = parse_caption(caption)
    groups = [_group_tags(group) for group in said.groups]
    whole = [values.index(getattr(said, name)) for name, values in _WHOLE.items() if " " not in name]
    silent = [0] * len(_GROUP)
    for index in range(MAX_GROUPS):
        whole += groups[index] if index < len(groups) else silent
    return [[*tags, index] for index, tags in enumerate(groups)], whole


def _group_tags(group: RequiredGroup) -> list[int]:
    return [values.index(getattr(group, name)) for name, values in _GROUP.items()]
