"""Scenes, their captions and pictures, and the checker that reads a picture back."""
