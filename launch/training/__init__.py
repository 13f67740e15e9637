"""`addiffusion train`: checks before a run, its folder, its loop, its checkpoints and policies."""
