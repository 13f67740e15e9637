"""The tokenizer's part of the training."""

from __future__ import annotations

from typing import Any

from addiffusion.embedded.making.part import PartReport, TrainingContext
from addiffusion.embedded.models.tokenizer import WORD_END, build_tokenizer, load_tokenizer
from addiffusion.embedded.world.captions import vocabulary
from addiffusion.errors import WeightsError
from addiffusion.files import whole_folder


class TokenizerPart:
    """Learns the merges of the world's vocabulary; seconds, no gradient."""

    name = "tokenizer"

    def train(self, context: TrainingContext) -> PartReport:
        """Writes ``pipeline/tokenizer``, or keeps the one that lies there: every other part is bound to its ids.

        Raises:
            WeightsError: the tokenizer that lies there does not know every word of the grammar.
        """
        folder = context.out / "pipeline"
        if not (folder / "tokenizer").exists():
            with whole_folder(folder / "tokenizer") as draft:
                built: Any = build_tokenizer(vocabulary())
                built.save_pretrained(str(draft))
        tokenizer = load_tokenizer(folder)
        if unknown := [word for word in vocabulary() if word + WORD_END not in tokenizer.get_vocab()]:
            raise WeightsError(
                f"The tokenizer in {folder / 'tokenizer'} does not know {unknown}; delete it to build a new one.",
                words=unknown,
            )
        return PartReport(part=self.name, steps=0, seconds=0.0, metrics={"tokens": float(len(tokenizer))})
