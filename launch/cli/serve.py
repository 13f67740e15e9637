"""`addiffusion serve`."""

from __future__ import annotations

from rich.console import Console

from addiffusion.extras import look_for
from addiffusion.memory import without_garbage_search
from launch.cli.options import Files, Overrides
from launch.serving.orders import ServeOrder


def serve(order: ServeOrder, *, overrides: Overrides = (), config: Files = ()) -> None:
    """Answer requests for images, by OpenAI's and AUTOMATIC1111's APIs, all of them drawn in one continuous batch.

    On this machine; on a cluster the same app runs by `serve deploy serve.yaml`.
    """
    look_for("uvicorn")
    from launch.runtime.logging_setup import log_to

    console = Console()
    log_to(console)
    with without_garbage_search():
        from launch.serving.serve import serve as answer

    answer(order, console, files=config, overrides=overrides)
