"""What "seconds per image" are: said wherever they stand."""

from __future__ import annotations

from typing import Final

SECONDS_NOTE: Final = (
    "s/image: wall clock of a set over its images. The start of the set and its end, where few images are left in the "
    "batch, are in it, and weigh more the more images differ in NFE."
)
FULL_QUEUE_NOTE: Final = (
    "Full queue: seconds that an image's passes take while other images wait for a slot, so without that end."
)
