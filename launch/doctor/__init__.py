"""`addiffusion doctor`: what a machine or a cluster can run."""
