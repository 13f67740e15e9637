"""Metrics of image sets, and of images against their full-length twins, on arrays and features given by the caller."""
