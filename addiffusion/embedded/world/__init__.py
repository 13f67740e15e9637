"""Scenes, their captions and pictures, and the checker that reads a picture back."""

from typing import Literal

Split = Literal["train", "validation", "test", "compositional"]
"""Disjoint parts of the prompts; ``compositional`` has the colour-shape pairs that nothing trained on."""
