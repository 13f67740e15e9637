"""Images by a policy that stops each of them when it is done.

python examples/five_lines.py [PIPELINE [POLICY]]; without arguments those that ship with the package.
"""

import sys

from addiffusion import AdaptivePipeline

pipeline, policy = [*sys.argv[1:3], *["embedded", "shipped"][len(sys.argv) - 1 :]]
pipe = AdaptivePipeline.from_pretrained(pipeline, policy=policy)
out = pipe("a red circle left of a blue square", num_images_per_prompt=2)
for number, image in enumerate(out.images):
    image.save(f"image{number}.png")
    print(f"image{number}.png: {out.nfe[number]} steps, stopped at {out.stopped_at[number]}")
