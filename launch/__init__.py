"""The roof: the command line, and the only place that knows all roles."""

import os

os.environ["MPLBACKEND"] = "agg"  # a notebook names a backend that this environment may lack; figures need none
