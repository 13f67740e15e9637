"""The page at `/`: its markup, style and scripts, and how they become one file."""
