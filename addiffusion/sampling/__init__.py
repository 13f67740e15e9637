"""Sampling by continuous batching: solver tables, slots, masks, and the engine that ties them together."""
