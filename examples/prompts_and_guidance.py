"""A list of prompts, each with a guidance scale and a negative prompt of its own, in one batch.

python examples/prompts_and_guidance.py [PIPELINE [POLICY]]
"""

import sys

import torch

from addiffusion import AdaptivePipeline

pipeline, policy = [*sys.argv[1:3], *["embedded", "shipped"][len(sys.argv) - 1 :]]
pipe = AdaptivePipeline.from_pretrained(pipeline, policy=policy)
prompts = ["a red circle", "a blue square above a green triangle", "a small yellow star"]
out = pipe(
    prompts,
    guidance_scale=[1.5, 2.0, 3.5],
    negative_prompt=["", "a circle", "a square"],
    generator=[torch.Generator().manual_seed(seed) for seed in range(len(prompts))],
    max_cost=30,  # no image takes more than 30 steps
    slots=2,  # two at once; the third begins when one of them is done
)
for prompt, image, nfe, actions in zip(prompts, out.images, out.nfe, out.actions, strict=True):
    image.save(f"{prompt.replace(' ', '_')}.png")
    print(f"{prompt}: {nfe} steps, {actions.count('refine')} refines")
