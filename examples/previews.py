"""Pictures on the way: what each image would be if it ended now.

python examples/previews.py [PIPELINE [POLICY]]
"""

import sys

from addiffusion import AdaptivePipeline

pipeline, policy = [*sys.argv[1:3], *["embedded", "shipped"][len(sys.argv) - 1 :]]
pipe = AdaptivePipeline.from_pretrained(pipeline, policy=policy)


def show(pipe, tick, timesteps, tensors):
    """Decode the clean prediction of the first image at every fourth tick."""
    if tick % 4 == 0:
        latent = tensors["z0_pred"][:1].to(pipe.vae.dtype) / pipe.vae.config.scaling_factor
        image = pipe.vae.decode(latent, return_dict=False)[0]
        pipe.image_processor.postprocess(image.detach())[0].save(f"preview{tick:02}.png")
        print(f"preview{tick:02}.png at t = {timesteps[0]:.0f}")
    return {}


out = pipe("two green squares", callback_on_step_end=show, callback_on_step_end_tensor_inputs=["z0_pred"])
out.images[0].save("image.png")
