"""Learned adaptive compute for text-to-image diffusion: the Ray-free library."""

__version__ = "0.1.0"
