"""The command line: what each command takes, and the border at which every error becomes one sentence."""
