"""The embedded aesthetic head: an MLP over the L2-normalised CLIP image embedding (LAION's aesthetic predictor).

It predicts 10 x (1 - severity) of a corrupted image: 10 is a clean picture, 0 one that can hardly be recognised.
Unlike LAION's head it has activations: quality is not linear in the embedding of so small a CLIP.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor, nn

from addiffusion.assets import REINSTALL
from addiffusion.files import make_folder, write_bytes
from addiffusion.weights import fill, read_tensors

BEST_SCORE: Final = 10.0
"""Target of a clean image."""
_WEIGHTS_FILE: Final = "model.safetensors"


class AestheticHead(nn.Module):
    """(n, e) L2-normalised CLIP embeddings to (n,) aesthetic scores."""

    def __init__(self, clip_width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(clip_width, 128), nn.GELU(), nn.Linear(128, 32), nn.GELU(), nn.Linear(32, 1)
        )
        self.gain = math.sqrt(clip_width)
        """Brings the entries of a unit vector to the order of 1."""

    def forward(self, embedding: Float[Tensor, "n e"]) -> Float[Tensor, " n"]:
        """Aesthetic score, roughly 0 to 10."""
        return BEST_SCORE * self.layers(self.gain * embedding).squeeze(-1)


def save_aesthetic(head: AestheticHead, folder: Path) -> None:
    """Write ``model.safetensors``; its shapes say the CLIP width."""
    weights = {name: tensor.contiguous() for name, tensor in head.state_dict().items()}
    make_folder(folder)
    write_bytes(folder / _WEIGHTS_FILE, save(weights))


def load_aesthetic(folder: Path, *, clip_width: int) -> AestheticHead:
    """The head in evaluation mode on the CPU.

    Raises:
        WeightsError: the file is missing, damaged or incomplete, or made for another CLIP.
    """
    head = AestheticHead(clip_width)
    path = folder / _WEIGHTS_FILE
    part = f"the aesthetic head for CLIP embeddings of width {clip_width}"
    fill(head, read_tensors(path, advice=REINSTALL), part=part, source=path, advice=REINSTALL)
    return head.eval()
