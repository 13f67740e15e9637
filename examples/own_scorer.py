"""A score of your own: the sharpest of four images.

python examples/own_scorer.py [PIPELINE [POLICY]]; commands take it too, where this folder is on PYTHONPATH:
addiffusion train 'scorers.extra=["own_scorer:make"]' has it judge beside the scores that the policy is paid by.
Needs `pip install 'addiffusion[train]'`.
"""

import sys

import numpy as np

from addiffusion import AdaptivePipeline, load_config
from addiffusion.records import ScoreRequest
from addiffusion.scorers.base import ScorerSpec
from addiffusion.scorers.factory import load_scoring


class Sharpness:
    """Mean difference of neighbouring pixels, in grey levels."""

    spec = ScorerSpec(name="sharpness", unit="grey levels", low=0, high=255, needs_prompt=False)

    def score(self, images, prompts):
        """(n,) for uint8 pixels (n, 3, H, W)."""
        grey = images.pixels.float().mean(dim=1)
        return (grey[:, :, 1:] - grey[:, :, :-1]).abs().mean(dim=(1, 2))


def make(device):
    """The factory that `scorers.extra` names."""
    return Sharpness()


def main():
    """Draw, score, keep the best."""
    pipeline, policy = [*sys.argv[1:3], *["embedded", "shipped"][len(sys.argv) - 1 :]]
    pipe = AdaptivePipeline.from_pretrained(pipeline, policy=policy)
    prompt = "a red circle left of a blue square"
    out = pipe(prompt, num_images_per_prompt=4)

    scoring = load_scoring(load_config(overrides=['scorers.extra=["own_scorer:make"]']).scorers)
    images = np.stack([np.asarray(image) for image in out.images])
    asked = ScoreRequest(images=images, prompts=(prompt,) * len(images), names=("sharpness",), embeddings=())
    scores = scoring.score(asked).values[:, 0]
    for number, (score, nfe) in enumerate(zip(scores, out.nfe, strict=True)):
        print(f"image {number}: sharpness {score:.2f} after {nfe} steps")
    out.images[int(scores.argmax())].save("sharpest.png")


if __name__ == "__main__":
    main()
