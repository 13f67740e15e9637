"""ROLE 3: episodes in, policy weights out."""
