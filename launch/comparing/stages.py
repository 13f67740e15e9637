"""Progress of a comparison: one stage after the other, each of which says who is drawing and how long it will take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from rich.console import Console

from evaluation.comparison.contestants import Contestant
from launch.runtime.console import Stage as Shown

Advance = Callable[[Contestant, int], None]
Stage = Callable[[str, Sequence[Contestant], int], Advance]


@contextmanager
def stages(console: Console) -> Iterator[Stage]:
    """The block gets a function that begins a stage of so many images, and returns what counts them."""
    with ExitStack() as stack:

        def begin(title: str, contestants: Sequence[Contestant], image_count: int) -> Advance:
            stack.close()
            names = ", ".join(contestant.title for contestant in contestants)
            headline = f"{title}: {image_count} images ({names})"
            stage = stack.enter_context(Shown(console, title, image_count, headline=headline))
            return lambda contestant, count: stage.advance(count, contestant.title)

        yield begin
