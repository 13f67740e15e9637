"""Metrics of image sets, and of images against their full-length twins, on arrays and features given by the caller.

Those that bring a network of their own are in ``evaluation.inception``.
"""
