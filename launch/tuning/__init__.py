"""`addiffusion tune`: searching configuration values."""
