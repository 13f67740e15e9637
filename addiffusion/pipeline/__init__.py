"""A trained policy in anybody's script: diffusers pipelines that decide image by image how far to go."""
