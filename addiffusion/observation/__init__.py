"""phi, what the policy sees: named slices, and how they are filled."""
