"""`addiffusion serve`: the server in one process, and as an application of Ray Serve."""
