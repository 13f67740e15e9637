"""An InceptionV3 with random weights, in torch-fidelity's own file format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch_fidelity import FeatureExtractorInceptionV3


class _Untrained(FeatureExtractorInceptionV3):
    def load_state_dict(self, state_dict: Any, *args: Any, **options: Any) -> Any:
        """Keep what the layers began with."""


def write_inception(path: Path) -> Path:
    """Weights under which features neither vanish nor explode."""
    torch.save({}, path)
    torch.manual_seed(0)
    network = _Untrained("untrained", ["2048"], feature_extractor_weights_path=str(path))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    torch.save(network.state_dict(), path)
    return path
