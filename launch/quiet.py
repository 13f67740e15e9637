"""Keeps the console for what a user can act on."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.logging import RichHandler

_CHATTY = ("ray", "ray.rllib", "ray._common.deprecation", "ray.tune", "open_clip", "diffusers", "transformers", "timm")


def log_to(console: Console) -> None:
    """Send this process's warnings through ``console``, where they don't tear a live table; libraries only complain."""
    handler = RichHandler(console=console, show_path=False, show_level=False, show_time=False)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def muted_stderr(*, show_failure: bool = True) -> Iterator[None]:
    """Hold back what compiled code writes to standard error; unless told otherwise, show it if the block fails.

    Ray's core prints notes about RLlib's way to start actors there, and each of its attempts to reach a head.
    """
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            if show_failure:
                held.seek(0)
                os.write(real, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
