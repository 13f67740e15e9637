"""The roof: the command line, and the only place that knows all roles."""
