"""Solver tables: everything a slot can do, read off diffusers' schedulers as rows of coefficients."""
