"""`addiffusion embedded`: the models, the prompts and the model card of the built-in world."""
