"""`addiffusion bank`: drawing every stop of a set of images once, and playing policies on it."""
