"""`addiffusion bench`: measurements, each as a ratio to its bound or its peer."""
