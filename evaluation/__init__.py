"""How good a policy is: comparisons on held-out prompts, and figures."""
