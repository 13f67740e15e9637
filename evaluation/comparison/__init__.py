"""The agent against everything else: who takes part, what they drew, and what it amounts to."""
