"""The built-in world: captioned scenes of coloured shapes, their exact checker, and small models trained on them."""
