"""A training of a few images, as overrides of the command line."""

from __future__ import annotations

import shlex

SMALL = shlex.split(
    "sampler.num_steps=5 sampler.warmup_steps=1 sampler.finish_steps=1 ppo.iterations=1 ppo.batch_size=2 ppo.epochs=1 "
    "policy.hidden=[16] prompts.train_count=2 evaluation.prompt_count=2 evaluation.static_steps=4 run.film_strips=1 "
    "cluster.mode=serial"
)
