"""The embedded world measured from its weights: the model card's figures, pictures and page."""
