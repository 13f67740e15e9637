"""The pipeline that a trained policy leads, for commands that draw as a script would."""

from __future__ import annotations

from typing import Any

import torch

from addiffusion import AdaptivePipeline, Policy
from addiffusion.backbones.placement import DTYPES
from addiffusion.pipeline.adaptive import EMBEDDED


def pipeline_of(policy: Policy) -> Any:
    """The model the policy was trained on, under that policy."""
    backbone = policy.trained_with.backbone
    pipe: Any = AdaptivePipeline.from_pretrained(
        EMBEDDED if backbone.path is None else backbone.path, policy=policy, dtype=DTYPES[backbone.dtype]
    )
    pipe.set_progress_bar_config(disable=True)
    if backbone.lora is not None:
        pipe.load_lora_weights(backbone.lora)
    return pipe.to("cuda") if torch.cuda.is_available() else pipe
