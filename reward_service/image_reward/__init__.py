"""ImageReward as its authors ship it, in a process of an environment of its own."""
