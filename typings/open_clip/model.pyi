"""What this project uses of open_clip.model, which has no types of its own."""

from typing import Any

from torch import Tensor, nn

class CLIPVisionCfg:
    def __init__(self, **options: Any) -> None: ...

class CLIPTextCfg:
    def __init__(self, **options: Any) -> None: ...

class CLIP(nn.Module):
    visual: nn.Module
    token_embedding: nn.Embedding
    logit_scale: nn.Parameter
    def __init__(self, embed_dim: int, vision_cfg: CLIPVisionCfg, text_cfg: CLIPTextCfg) -> None: ...
    def encode_image(self, image: Tensor, normalize: bool = False) -> Tensor: ...
    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor: ...
