"""Settings of training images, drawn from the ranges of the configuration."""

from __future__ import annotations

import torch

from addiffusion.config import Config
from addiffusion.seeds import generator
from addiffusion.setting import Setting


def drawn_setting(config: Config, seed: int) -> Setting | None:
    """The setting of a training image, a function of the run's seed and the image's own; None without any range.

    Every ticket of an image has the same one, and so has its full-length reference: steps are log-uniform, guidance
    scales uniform, solvers equally likely.

    Args:
        config: of the run.
        seed: of the image.
    """
    sampler, scales = config.sampler, config.backbone.guidance_scale_range
    if (sampler.num_steps_range, sampler.solvers, scales) == (None, None, None):
        return None
    stream = generator(config.run.seed, "setting", seed)
    steps, scale, choice = torch.rand(3, generator=stream, dtype=torch.float64).tolist()
    few, many = sampler.num_steps_range or (sampler.num_steps, sampler.num_steps)
    weak, strong = scales or (config.backbone.guidance_scale, config.backbone.guidance_scale)
    solvers = sampler.solvers or (sampler.solver,)
    return Setting(
        num_steps=min(many, int(few * ((many + 1) / few) ** steps)),
        guidance_scale=weak + (strong - weak) * scale,
        solver=solvers[int(choice * len(solvers))],
    )
