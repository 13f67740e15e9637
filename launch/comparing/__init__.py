"""`sample`, `score`, `evaluate`, `report`, `ablate`, `gate`, `metrics` and `judge`."""
