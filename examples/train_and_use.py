"""A policy for your own prompts: trained in this process, without Ray, then put to use.

python examples/train_and_use.py [KEY=VALUE ...]; any key of `addiffusion config` can be set, e.g. ppo.iterations=60,
'policy.actions=[continue,stop,refine,unguided]' for other actions, backbone.kind=sdxl backbone.path=~/models/sdxl.
As it stands it draws some 350 images: too few for a good policy, enough to see how it goes.
Needs `pip install 'addiffusion[train]'`.
"""

import sys
from pathlib import Path

from addiffusion import AdaptivePipeline, load_policy
from launch.cli.app import app

PROMPTS = """
a red circle
a small yellow star
two green squares
three blue triangles
a large red star
a green circle below a yellow square
a red circle left of a blue square
a blue square above a green triangle
"""

Path("prompts.txt").write_text(PROMPTS)
size = ["ppo.iterations=8", "ppo.batch_size=32", "prompts.train_count=32", "evaluation.prompt_count=16"]
arguments = ["cluster.mode=serial", "prompts.source=prompts.txt", "run.dir=own_run", *size, *sys.argv[1:]]
# The command `addiffusion train`: it keeps a part of the prompts for the table at the end.
if code := app(["train", *arguments], standalone_mode=False):
    sys.exit(code)

policy = load_policy("own_run")
backbone = policy.trained_with.backbone
pipe = AdaptivePipeline.from_pretrained("embedded" if backbone.kind == "embedded" else backbone.path, policy=policy)
out = pipe("a yellow circle left of a red star", num_images_per_prompt=2)
for number, image in enumerate(out.images):
    image.save(f"image{number}.png")
    print(f"image{number}.png: {out.nfe[number]} steps: {', '.join(out.actions[number])}")
