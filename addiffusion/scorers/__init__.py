"""One adapter per scorer model, and the suite that runs them together."""
