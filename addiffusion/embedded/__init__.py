"""The built-in world: captioned scenes of coloured shapes, their exact checker, and the small models trained on them."""
