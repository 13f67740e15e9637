"""Parts of a day with a GPU that go wrong; a module of their own, so that their processes import little."""

from __future__ import annotations

import os
import time
from typing import Any


def fails(_: object) -> dict[str, Any]:
    """Raises."""
    raise ValueError("no such kernel")


def dies(_: object) -> dict[str, Any]:
    """Ends its process."""
    os._exit(7)


def hangs(_: object) -> dict[str, Any]:
    """For longer than anybody waits."""
    time.sleep(60)
    return {}


def works(_: object) -> dict[str, Any]:
    """One figure."""
    return {"figure": 1}
