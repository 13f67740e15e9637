"""ROLE 1: tickets in, episodes out."""
