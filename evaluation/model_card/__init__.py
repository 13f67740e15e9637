"""The model card of the built-in world."""
