"""The models of the built-in world as a user runs them."""
