"""`addiffusion sample`."""

from __future__ import annotations

from rich.console import Console

from addiffusion.memory import without_garbage_search
from launch.cli.options import Files, Overrides, refuse_loose_words
from launch.comparing.orders import SampleOrder


def sample(order: SampleOrder, *, overrides: Overrides = (), config: Files = ()) -> None:
    """Draw one image and print what the agent did at each step, and the NFE it spent."""
    from launch.runtime.console import Stage
    from launch.runtime.logging_setup import log_to

    refuse_loose_words(order.prompt, overrides)
    console = Console()
    log_to(console)
    with Stage(console, "drawing"):
        with without_garbage_search():
            from launch.comparing.sample import draw

        drawn = draw(order, files=config, overrides=overrides)
    console.print(drawn.decisions)
    console.print(drawn.summary, highlight=False, soft_wrap=True)
